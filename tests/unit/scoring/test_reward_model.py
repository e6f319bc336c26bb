"""Reward models: heads, folders that others read and write, scores by text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import ROPE
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, prepare
from alignite.errors import DataError
from alignite.models.columns import compute_columns
from alignite.models.loading import load_model
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.routing import hidden_states
from alignite.models.score_head import attach_score_head, score_scale, set_score_scale
from alignite.scoring.reward import RewardModel

GPT: dict[str, Any] = {"vocab_size": 96, "n_layer": 2, "n_head": 4, "n_embd": 32}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**ROPE)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**ROPE, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**ROPE)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT, bos_token_id=1, eos_token_id=2, pad_token_id=0)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**ROPE)),
}
IDS = torch.arange(20, 29)


def raw_scores(model: Any) -> torch.Tensor:
    """Of one row, at its last token."""
    hidden = hidden_states(model, IDS, torch.arange(len(IDS)), np.array([[0, len(IDS), -1]]))
    scores: torch.Tensor = model.score(hidden[-1]).detach()
    return scores


def saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    MODELS[name]().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_is_a_sequence_classifier(name: str, tmp_path: Path) -> None:
    base = saved(name, tmp_path / "base")
    model = load_reward_model(base, heads=2, seed=3)
    before = load_model(base).state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())  # the body at step 0
    save_reward_model(model, tmp_path / "reward")
    theirs, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", output_loading_info=True)
    assert not any(info.values())
    # With others in the batch, padded on the right.
    rows = torch.stack([IDS, torch.cat([IDS[:5], torch.zeros(4, dtype=torch.int64)])])
    logits = theirs.eval()(input_ids=rows, attention_mask=(rows != 0).long()).logits
    assert torch.allclose(logits[0], raw_scores(model), atol=1e-5)
    theirs.save_pretrained(tmp_path / "theirs")  # as TRL's RewardTrainer saves it
    for folder in ("reward", "theirs"):
        again = load_reward_model(tmp_path / folder)
        assert torch.allclose(raw_scores(again), raw_scores(model), atol=1e-6)
    assert again.has_vocabulary_head == (name in ("llama, tied", "gpt2"))


def test_the_head_starts_as_the_papers_and_from_its_seed_alone(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "base")
    one, same, other = (load_reward_model(folder, heads=400, seed=seed) for seed in (1, 1, 2))
    weights = [model.score.weight for model in (one, same, other)]  # type: ignore[union-attr]
    assert torch.equal(weights[0], weights[1])  # type: ignore[arg-type]
    assert not torch.equal(weights[0], weights[2])  # type: ignore[arg-type]
    assert float(weights[0].std().detach()) == pytest.approx(1 / np.sqrt(33), rel=0.03)  # type: ignore[union-attr, operator]
    state = torch.get_rng_state()
    model = load_model(folder, dtype="bfloat16")
    head = attach_score_head(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert head.bias is None
    assert head.weight.dtype == torch.float32
    assert raw_scores(model).dtype == torch.float32


def test_openrlhf_folders_keep_their_head_mean_and_deviation(tmp_path: Path) -> None:
    model = load_reward_model(saved("llama", tmp_path / "base"))
    save_reward_model(model, tmp_path / "theirs")
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    tensors["value_head.weight"] = tensors.pop("score.weight")
    save_file(tensors, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    for name in ("score_gain", "score_offset"):
        del config[name]
    config |= {"value_head_prefix": "value_head", "mean": 0.5, "std": 2.0, "normalize_reward": True}
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    theirs = load_reward_model(tmp_path / "theirs")
    assert torch.allclose(raw_scores(theirs), raw_scores(model), atol=1e-6)
    assert score_scale(theirs) == ([0.5], [-0.25])
    save_reward_model(theirs, tmp_path / "ours")
    ours = load_reward_model(tmp_path / "ours")
    assert score_scale(ours) == ([0.5], [-0.25])
    assert not hasattr(ours.config, "mean")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config | {"normalize_reward": False}))
    assert score_scale(load_reward_model(tmp_path / "theirs")) == ([1.0], [0.0])


def test_token_classifiers_keep_their_bias_both_ways(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = LlamaForTokenClassification(LlamaConfig(**ROPE, num_labels=2)).eval()
    with torch.no_grad():
        theirs.score.bias.add_(0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    model = load_reward_model(tmp_path / "theirs")
    expected = theirs(input_ids=IDS[None]).logits[0, -1].detach()
    assert torch.allclose(raw_scores(model), expected, atol=1e-5)
    save_reward_model(model, tmp_path / "ours")
    again = LlamaForTokenClassification.from_pretrained(tmp_path / "ours").eval()
    assert torch.allclose(again(input_ids=IDS[None]).logits[0, -1].detach(), expected, atol=1e-5)


@pytest.fixture
def reward(tiny_model_folder: Path) -> RewardModel:
    return RewardModel(load_reward_model(tiny_model_folder), ChatTokenizer.from_folder(tiny_model_folder))


def test_scores_by_text_are_those_of_training(reward: RewardModel, tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    rows: list[dict[str, Any]] = [
        {"prompt": talk, "chosen": "hello", "rejected": "go away"},
        {"prompt": "q <|im_end|>", "chosen": "yes", "rejected": "no"},
    ]
    prepared = prepare(rows, reward.tokenizer, PrepareConfig(), tmp_path / "p")
    set_score_scale(reward.model, [2.0], [1.0])
    columns = compute_columns({"policy": reward.model}, prepared.feedback_batch([0, 1]), frozenset({"policy.score"}))
    trained = columns["policy.score"][:, 0].detach().numpy()
    prompts = [row["prompt"] for row in rows for _ in range(2)]
    replies = [row[side] for row in rows for side in ("chosen", "rejected")]
    assert reward.score(prompts, replies) == pytest.approx(trained, abs=1e-5)
    assert reward.raw_scores(prompts, replies)[:, 0] == pytest.approx((trained - 1) / 2, abs=1e-5)


def test_how_pairs_are_batched_changes_nothing(reward: RewardModel) -> None:
    prompts = ["one", "two", "one", "a longer prompt", "one"]
    replies = ["a", "bb", "", "c" * 40, [{"role": "assistant", "content": "a"}]]
    wanted = reward.score(prompts, replies)
    assert wanted[0] == pytest.approx(wanted[4], abs=1e-6)
    alone = [float(reward.score([prompt], [reply])[0]) for prompt, reply in zip(prompts, replies, strict=True)]
    assert wanted == pytest.approx(alone, abs=1e-5)
    reward.max_tokens = 40
    assert reward.score(prompts, replies) == pytest.approx(wanted, abs=1e-5)
    assert reward.score([], []).shape == (0,)
    reward.model.train()
    reward.score(prompts, replies)
    assert reward.model.training


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_reply_ends_at_once_in_both_forms(reward: RewardModel, empty: str) -> None:
    message = [{"role": "assistant", "content": empty}]
    found = reward.score(["q"] * 3, [empty, message, "a"])
    assert found[0] == found[1] != pytest.approx(found[2], abs=1e-6)


@pytest.mark.parametrize(
    "reply",
    [None, 5, [], ["x"], [{"role": "assistant"}], [{"role": "assistant", "content": None}],
     [{"role": "user", "content": ""}]],
)  # fmt: skip
def test_what_is_no_reply_is_told_by_its_pair(reward: RewardModel, reply: Any) -> None:
    with pytest.raises(DataError) as error:
        reward.score(["q", "q"], ["a", reply])
    assert error.value.where == "pair 1"


def test_replies_share_their_prompt(reward: RewardModel) -> None:
    seen: list[int] = []
    reward.score(["q"], ["a"])
    reward.model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda module, inputs, output: seen.append(inputs[0].numel())
    )
    reward.score(["q"], ["a"])
    reward.score(["q"] * 4, ["a", "b", "c", "d"])
    assert seen[1] - seen[0] == 3 * 2  # a byte and the end token


def test_normalized_scores_are_saved_with_the_model(reward: RewardModel, tmp_path: Path) -> None:
    prompts, replies = ["q"] * 5, ["a", "bb", "ccc", "dddd", "!"]
    gain, offset = reward.normalize(prompts, replies)
    assert score_scale(reward.model) == (gain, offset)
    scores = reward.score(prompts, replies)
    assert (scores.mean(), scores.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))
    reward.save(tmp_path / "r")
    assert RewardModel.from_folder(tmp_path / "r").score(prompts, replies) == pytest.approx(scores, abs=1e-3)


def test_another_vocabulary_scores_the_same_text(reward: RewardModel, tmp_path: Path) -> None:
    """A policy's ids mean nothing to a reward model; texts do."""
    folder = tmp_path / "raw"
    reward.save(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    raw = RewardModel.from_folder(folder)
    ids = raw.tokenizer.encode("question answer<|im_end|>")
    model: Any = raw.model
    positions = torch.arange(len(ids))
    hidden = hidden_states(model, torch.tensor(ids), positions, np.array([[0, len(ids), -1]]))
    assert raw.score(["question"], [" answer"]) == pytest.approx([float(model.score(hidden[-1]).detach())], abs=1e-5)
    assert raw.score(["question"], [" answer"]) != pytest.approx(reward.score(["question"], [" answer"]), abs=1e-4)
