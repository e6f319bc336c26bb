"""Adapter folders that are damaged, incomplete or another model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from alignite.errors import AdapterError, ResourceError
from alignite.peft import LoraConfig, adapter_parameters, apply_adapter, load_adapter, save_adapter
from alignite.peft.seat import seats

KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def llama(width: int = 32) -> nn.Module:
    torch.manual_seed(1)
    sizes = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=48, hidden_size=width, num_key_value_heads=2, **sizes)).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = llama()
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    apply_adapter(model, config)
    save_adapter(model, tmp_path / "adapter", config=config)
    return tmp_path / "adapter"


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_weights(folder: Path, key: str, value: torch.Tensor | None) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(path).items() if name != key}
    save_file(tensors if value is None else {**tensors, key: value}, path)


def refused(folder: Path, model: nn.Module | None = None) -> str:
    model = model if model is not None else llama()
    needed = [parameter.requires_grad for parameter in model.parameters()]
    with pytest.raises(AdapterError) as caught:
        load_adapter(model, folder)
    assert str(folder) in str(caught.value)
    assert not seats(model), "the model is as it was"
    assert [parameter.requires_grad for parameter in model.parameters()] == needed
    return str(caught.value)


def test_missing_unexpected_and_misshapen_tensors_are_named_together(folder: Path) -> None:
    edit_weights(folder, KEY, None)
    edit_weights(folder, "base_model.model.extra.weight", torch.zeros(2))
    other = KEY.replace("layers.0", "layers.1")
    edit_weights(folder, other, torch.zeros(4, 7))
    words = refused(folder)
    assert f"missing: {KEY}" in words
    assert "unexpected: base_model.model.extra.weight" in words
    assert f"{other} is (4, 7), not (4, 32)" in words


def test_only_the_first_of_many_tensors_are_named(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({f"{name}.other": tensor for name, tensor in tensors.items()}, path)
    words = refused(folder)
    assert words.count(".other") == 4
    assert words.count(f"and {len(tensors) - 4} more") == 2
    save_file({name: tensor[:1, :1].contiguous() for name, tensor in tensors.items()}, path)
    words = refused(folder)
    assert words.count(" is (1, 1), not ") == 4
    assert f"and {len(tensors) - 4} more" in words


def test_an_adapter_of_another_model_is_refused(folder: Path) -> None:
    assert "(4, 32), not (4, 16)" in refused(folder, llama(16))


def test_integers_are_not_weights(folder: Path) -> None:
    edit_weights(folder, KEY, torch.zeros(4, 32, dtype=torch.int32))
    assert "int32" in refused(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"brand_new_trick": 3}, "brand_new_trick"),
        ({"r": "four"}, "whole number"),
        ({"lora_dropout": "much"}, "wrong type"),
        ({"target_modules": ["gate"]}, "gate_proj"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(folder: Path, values: dict[str, Any], words: str) -> None:
    edit_config(folder, **values)
    assert words in refused(folder)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x01"])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: str) -> None:
    (folder / "adapter_config.json").write_text(content)
    refused(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "can run code" in refused(folder)
    (folder / "adapter_config.json").unlink()
    assert "adapter_config.json" in refused(folder)
    refused(tmp_path / "nowhere")


@pytest.mark.parametrize("size", [0, 5, 200])
def test_a_truncated_file_is_refused(folder: Path, size: int) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder)


def test_named_adapters_live_in_folders_of_their_own(tmp_path: Path) -> None:
    model = llama()
    for name in ("default", "other"):
        apply_adapter(model, LoraConfig(r=2), name=name)
        save_adapter(model, tmp_path, name)
    assert (tmp_path / "adapter_config.json").is_file()
    assert (tmp_path / "other" / "adapter_model.safetensors").is_file()
    again = llama()
    load_adapter(again, tmp_path, "other", trainable=True)
    trained = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    assert len(trained) == len(adapter_parameters(again, "other")) == 28


def test_a_folder_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = llama()
    apply_adapter(model, LoraConfig(r=2))
    with pytest.raises(ResourceError):
        save_adapter(model, tmp_path / "file" / "adapter")
