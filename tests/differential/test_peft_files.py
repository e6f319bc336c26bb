"""Adapter folders go to PEFT and come from it without a difference."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from alignite.peft import LoraConfig, adapter_parameters, apply_adapter, load_adapter, merge_adapter, save_adapter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

# PEFT uses a name that transformers is about to drop; every other warning is an error.
DEPRECATED = "`is_gradient_checkpointing` is deprecated"
pytestmark = pytest.mark.filterwarnings(f"ignore:{DEPRECATED}:FutureWarning")

IDS = torch.arange(18).reshape(2, 9)


def llama() -> nn.Module:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=48, num_key_value_heads=2, **sizes)).eval()


def gpt2() -> nn.Module:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=4)).eval()


CASES = pytest.mark.parametrize(
    ("make", "options"),
    [
        (llama, {"target_modules": "all-linear"}),
        (llama, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "lora_alpha": 16}),
        (
            llama,
            {"target_modules": r".*mlp\..*_proj", "rank_pattern": {"up_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        ),
        (llama, {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
        (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
    ids=["all-linear", "rslora", "patterns", "layers", "gpt2"],
)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(IDS).logits
    return found


def randomise(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in parameters:
        parameter.data.normal_(0, 0.1, generator=generator)


@CASES
def test_peft_loads_what_we_save(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    model = make()
    config = LoraConfig(r=4, **options)
    apply_adapter(model, config)
    randomise(adapter_parameters(model).values())
    save_adapter(model, tmp_path, config=config, base_model_name_or_path="base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of keys it misses or does not know
        warnings.filterwarnings("ignore", DEPRECATED, FutureWarning)
        theirs = peft.PeftModel.from_pretrained(make(), str(tmp_path))
    assert not torch.allclose(logits(model), logits(make()))
    torch.testing.assert_close(logits(theirs), logits(model), rtol=1e-5, atol=1e-5)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"


@CASES
def test_we_load_what_peft_saves_and_save_it_bit_for_bit(tmp_path: Path, make: Any, options: dict[str, Any]) -> None:
    theirs = peft.get_peft_model(make(), peft.LoraConfig(r=4, task_type="CAUSAL_LM", **options))
    randomise(parameter for parameter in theirs.parameters() if parameter.requires_grad)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours = make()
    config = load_adapter(ours, tmp_path / "theirs")
    torch.testing.assert_close(logits(ours), logits(theirs.eval()), rtol=1e-5, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in adapter_parameters(ours).values())

    save_adapter(ours, tmp_path / "ours", config=config)
    name = "adapter_model.safetensors"
    left, right = load_file(tmp_path / "theirs" / name), load_file(tmp_path / "ours" / name)
    assert left.keys() == right.keys()
    assert all(left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left)
    fields = [json.loads((tmp_path / side / "adapter_config.json").read_text()) for side in ("theirs", "ours")]
    assert fields[0].keys() <= fields[1].keys() | {"runtime_config"}, "every field that PEFT writes"

    merged = merge_adapter(ours)
    assert merged.modules == len(left) // 2
    torch.testing.assert_close(logits(ours), logits(theirs.merge_and_unload()), rtol=1e-5, atol=1e-5)


def test_pefts_own_config_object_is_taken(tmp_path: Path) -> None:
    theirs = peft.LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "k_proj"], lora_dropout=0.1, use_rslora=True)
    ours = LoraConfig.from_any(theirs)
    assert (ours.r, ours.lora_alpha, ours.lora_dropout, ours.use_rslora) == (3, 6, 0.1, True)
    assert sorted(ours.target_modules) == ["k_proj", "q_proj"]


def test_gradients_are_pefts(tmp_path: Path) -> None:
    ours = llama()
    apply_adapter(ours, LoraConfig(r=4))
    randomise(adapter_parameters(ours).values())
    save_adapter(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(llama(), str(tmp_path), is_trainable=True)
    for model in (ours, theirs):
        model.train()
        model(IDS).logits.square().mean().backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default.", "."): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.grad is not None
    }
    found = {name: parameter.grad for name, parameter in adapter_parameters(ours).items()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm(), name
