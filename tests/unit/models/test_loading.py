from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignite.errors import AligniteError, ConfigError, ModelError, ResourceError
from alignite.models.loading import load_model, resolve_device, save_model


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def change_weights(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(folder: Path | str) -> str:
    with pytest.raises(ModelError) as error:
        load_model(folder)
    return str(error.value)


def test_a_model_is_loaded_ready_to_be_routed(folder: Path) -> None:
    model: Any = load_model(folder)
    assert not model.training
    assert model.config._attn_implementation == "alignite"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(folder, "bfloat16").parameters()} == {torch.bfloat16}


def test_logits_are_transformers(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.arange(20)[None]
    mask = torch.ones_like(ids)
    mask[:, :3] = 0
    with torch.no_grad():
        ours: Any = load_model(folder)
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
        for given in (None, mask):
            expected = theirs(ids, attention_mask=given).logits[:, 3:]
            torch.testing.assert_close(ours(ids, attention_mask=given).logits[:, 3:], expected, rtol=1e-4, atol=1e-5)


def test_faults_of_the_weights_are_named(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    change_weights(folder, lambda tensors: tensors.update({"model.stranger": torch.zeros(2)}))
    assert "unexpected (model.stranger)" in refused(folder)
    change_weights(folder, lambda tensors: tensors.pop("model.stranger"))
    change_weights(folder, lambda tensors: tensors.update({name: tensors[name][:-1].clone()}))
    assert "of another shape" in refused(folder)
    change_weights(folder, lambda tensors: tensors.pop(name))
    assert f"1 missing ({name})" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    change_weights(folder, lambda tensors: tensors["model.norm.weight"].fill_(value))
    assert "model.norm.weight" in refused(folder)


def test_faults_of_the_folder_say_how_to_mend_them(folder: Path, tmp_path: Path) -> None:
    assert "the hub cannot be reached" in refused("org/some-model")
    assert "import-gguf" in refused(tmp_path / "none")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "can run code" in refused(folder)
    (folder / "config.json").write_text("{broken")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    assert "config.json" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "an adapter, not a model" in refused(folder)


def test_code_in_the_folder_is_not_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    refused(folder)
    assert not (tmp_path / "owned").exists()


def test_an_index_that_leaves_the_folder_is_refused(folder: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside its folder" in refused(folder)


def test_saving_and_loading_keeps_every_bit_and_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model: Any = load_model(folder)
    with torch.no_grad():
        model.model.norm.weight.normal_()
    save_model(model, tmp_path / "saved", folder)
    again = load_model(tmp_path / "saved")
    for (name, ours), (_, theirs) in zip(again.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").encode("<|im_end|>") == [2]
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"} <= names
    save_model(model, tmp_path / "saved", folder)  # a second time replaces the files
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        save_model(model, tmp_path / "file" / "below")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ResourceError, match="'cuda:1'"):
        resolve_device("cuda:1")
    with pytest.raises(ConfigError, match="'gpu'"):
        resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with monkeypatch.context() as patch:
        patch.setenv("LOCAL_RANK", "1")
        assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")
        assert resolve_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(AligniteError, match="'cuda:2'"):
        resolve_device("cuda:2")
