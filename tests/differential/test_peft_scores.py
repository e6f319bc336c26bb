"""Adapters of reward models go to PEFT's SEQ_CLS and come from it, the trained score head with them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from alignite.errors import AdapterError
from alignite.models.loading import load_model
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.routing import hidden_states
from alignite.peft import (
    LoraConfig,
    adapter_parameters,
    apply_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
    use_adapters,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.arange(20, 29)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=48, num_key_value_heads=2, **sizes)).save_pretrained(tmp_path / "base")
    save_reward_model(load_reward_model(tmp_path / "base", heads=2), tmp_path / "reward")
    return tmp_path / "reward"


def scores(model: Any) -> torch.Tensor:
    hidden = hidden_states(model, IDS, torch.arange(len(IDS)), np.array([[0, len(IDS), -1]]))
    found: torch.Tensor = model.score(hidden[-1]).detach()
    return found


def in_peft(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_ours_to_peft_and_back(folder: Path, tmp_path: Path) -> None:
    model = load_reward_model(folder)
    before = scores(model)
    trainable = apply_adapter(model, LoraConfig(r=4, init_lora_weights=False).for_scores())
    assert trainable[-1] == "score.adapters.default.weight"
    assert sorted(trainable) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    with torch.no_grad():
        adapter_parameters(model)["score.weight"].add_(0.1)
    save_adapter(model, tmp_path / "ours", config=LoraConfig(r=4).for_scores())
    fields = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert (fields["task_type"], fields["modules_to_save"]) == ("SEQ_CLS", ["score"])
    assert "score" not in fields["target_modules"]
    theirs = peft.PeftModel.from_pretrained(in_peft(folder), str(tmp_path / "ours"))
    assert isinstance(theirs, peft.PeftModelForSequenceClassification)
    assert torch.allclose(theirs(input_ids=IDS[None]).logits[0].detach(), scores(model), atol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    ours, back = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[key], back[key]) for key in ours)
    again = load_reward_model(folder)
    load_adapter(again, tmp_path / "theirs")
    assert torch.allclose(scores(again), scores(model), atol=1e-6)
    with use_adapters(again, None):
        assert torch.allclose(scores(again), before, atol=1e-6)
    # A second save without a config reads it off the adapter.
    save_adapter(again, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "adapter_config.json").read_text())["modules_to_save"] == ["score"]

    wanted = scores(again)
    merge_adapter(again)
    assert torch.allclose(scores(again), wanted, atol=1e-5)
    save_reward_model(again, tmp_path / "merged")
    assert torch.allclose(in_peft(tmp_path / "merged")(input_ids=IDS[None]).logits[0].detach(), wanted, atol=1e-5)


def test_pefts_own_to_ours(folder: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=4, init_lora_weights=False)
    theirs = peft.get_peft_model(in_peft(folder), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.2)
    theirs.eval().save_pretrained(tmp_path / "theirs")
    model = load_reward_model(folder)
    loaded = load_adapter(model, tmp_path / "theirs", trainable=True)
    assert loaded.modules_to_save == ["classifier", "score"]
    assert torch.allclose(scores(model), theirs(input_ids=IDS[None]).logits[0].detach(), atol=1e-5)
    assert adapter_parameters(model)["score.weight"].requires_grad
    assert not model.score.weight.requires_grad  # type: ignore[union-attr]


def test_a_model_without_the_head_refuses_the_adapter_and_stays_as_it_was(folder: Path, tmp_path: Path) -> None:
    model = load_reward_model(folder)
    apply_adapter(model, LoraConfig(r=2).for_scores())
    save_adapter(model, tmp_path / "ours")
    plain = load_model(tmp_path / "base")
    names = [name for name, _ in plain.named_parameters()]
    with pytest.raises(AdapterError, match=r"unexpected: .*score\.weight"):
        load_adapter(plain, tmp_path / "ours")
    assert [name for name, _ in plain.named_parameters()] == names
    for saved in (["lm_head"], ["norm"]):
        with pytest.raises(AdapterError, match="modules_to_save names"):
            apply_adapter(plain, LoraConfig(r=2, modules_to_save=saved))
    with pytest.raises(AdapterError, match="list of names"):
        LoraConfig(modules_to_save="score")  # type: ignore[arg-type]


def test_the_adapters_own_head_takes_gradients_and_the_base_none(folder: Path) -> None:
    model = load_reward_model(folder)
    apply_adapter(model, LoraConfig(r=2).for_scores())
    hidden = hidden_states(model, IDS, torch.arange(len(IDS)), np.array([[0, len(IDS), -1]]))
    model.score(hidden[-1]).sum().backward()  # type: ignore[operator]
    assert adapter_parameters(model)["score.weight"].grad is not None
    assert model.score.weight.grad is None  # type: ignore[union-attr]
