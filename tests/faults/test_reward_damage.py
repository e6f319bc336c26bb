"""Reward models that do not fit, scores that are no numbers, rows that compare nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, prepare
from alignite.errors import DataError, ModelError, NumericsError, TokenizerError, UsageError
from alignite.models.loading import load_model
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.score_head import attach_score_head, score_scale, set_score_scale
from alignite.objectives.reward import RewardObjective
from alignite.peft import LoraConfig, apply_adapter
from alignite.scoring.process_reward import ProcessRewardModel, aggregate_steps
from alignite.scoring.reward import RewardModel


@pytest.fixture
def reward_folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    save_reward_model(load_reward_model(tiny_model_folder), tmp_path / "reward", tiny_model_folder)
    return tmp_path / "reward"


def test_a_padding_token_that_ends_replies_is_told_once(
    tiny_model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_model_folder, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"pad_token_id": config["eos_token_id"]}))
    model = load_reward_model(source)
    for name in ("checkpoint-1", "checkpoint-2"):
        save_reward_model(model, tmp_path / name, source)
    (said,) = caplog.messages
    assert f"{source}: pad_token_id 2 also ends replies" in said
    assert "set pad_token_id to another token in its config.json" in said


def damage(folder: Path, change: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"] = change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_heads_that_do_not_fit(reward_folder: Path) -> None:
    with pytest.raises(ModelError, match="1 scores a reply, not 3"):
        load_reward_model(reward_folder, heads=3)
    for weight, message in (
        (torch.full((1, 32), float("nan")), "not finite"),
        (torch.zeros(32), "not \\(heads, hidden\\)"),
        (torch.zeros(1, 31), "reads 31 numbers"),
    ):
        damage(reward_folder, weight)
        with pytest.raises(ModelError, match=message):
            load_reward_model(reward_folder)


def test_weights_that_are_missing_besides_the_head(reward_folder: Path) -> None:
    tensors = load_file(reward_folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, reward_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        load_reward_model(reward_folder)


@pytest.mark.parametrize(
    "fields",
    [{"score_gain": [1.0, 2.0]}, {"score_gain": "x"}, {"score_offset": [float("inf")]}, {"mean": 0.0, "std": 0.0}],
)
def test_a_scale_that_cannot_be_used(fields: dict[str, object], reward_folder: Path) -> None:
    config = json.loads((reward_folder / "config.json").read_text())
    if "mean" in fields:
        del config["score_gain"], config["score_offset"]
    (reward_folder / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(ModelError, match="scale of the scores"):
        load_reward_model(reward_folder)


def test_what_is_no_reward_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(tiny_model_folder), ChatTokenizer.from_folder(tiny_model_folder)
    with pytest.raises(UsageError, match="no score head"):
        RewardModel(model, tokenizer)
    with pytest.raises(UsageError, match="no score head"):
        save_reward_model(model, tmp_path / "x")
    with pytest.raises(UsageError, match="0 heads"):
        attach_score_head(model, 0)
    with pytest.raises(ModelError, match="no vocabulary head"):
        attach_score_head(torch.nn.Linear(2, 2))
    attach_score_head(model)
    with pytest.raises(ModelError, match="already"):
        attach_score_head(model)
    with pytest.raises(UsageError, match="two or three classes"):
        ProcessRewardModel(model, tokenizer)
    with pytest.raises(UsageError, match="finite number"):
        set_score_scale(model, [1.0, 2.0], [0.0])
    assert score_scale(model) == ([1.0], [0.0])
    apply_adapter(model, LoraConfig(r=2).for_scores())
    with pytest.raises(UsageError, match="adapter"):
        save_reward_model(model, tmp_path / "x")


def test_another_vocabulary_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = load_reward_model(tiny_model_folder)
    content = json.loads((tiny_model_folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 5000
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text((tiny_model_folder / "tokenizer_config.json").read_text())
    with pytest.raises(TokenizerError, match="largest id is 5000"):
        RewardModel(model, ChatTokenizer.from_folder(folder))


def test_pairs_and_scores_that_cannot_be_taken(tiny_model_folder: Path) -> None:
    reward = RewardModel(load_reward_model(tiny_model_folder), ChatTokenizer.from_folder(tiny_model_folder))
    with pytest.raises(UsageError, match="2 prompts and 1 completions"):
        reward.score(["a", "b"], ["c"])
    with pytest.raises(DataError, match="pair 1") as error:
        reward.score(["a", "b"], ["c", 5])  # type: ignore[list-item]
    assert "number" in str(error.value)
    with pytest.raises(UsageError, match="do not differ"):
        reward.normalize(["a", "a"], ["b", "b"])
    with torch.no_grad():
        reward.model.score.weight.fill_(float("nan"))  # type: ignore[operator, union-attr]
    with pytest.raises(NumericsError, match="pair 0"):
        reward.score(["a"], ["b"])


def test_solutions_that_cannot_be_scored(tiny_model_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    model = ProcessRewardModel(load_reward_model(tiny_model_folder, 2), tokenizer)
    for solution in ([], ["a", " "], "\n\n"):
        with pytest.raises(DataError, match="solution 1"):
            model.score(["p", "p"], ["fine", solution])
    with pytest.raises(UsageError, match="no step"):
        aggregate_steps([])
    with pytest.raises(UsageError, match="aggregation"):
        aggregate_steps([0.5], "sum")


def test_rows_that_compare_nothing_are_counted_or_told(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": "same", "rejected": "same"},
        {"prompt": "q", "chosen": "a", "rejected": ""},
        {"prompt": "q", "chosen": "a"},
    ]
    report = prepare(rows, tokenizer, PrepareConfig(on_bad_row="skip"), tmp_path / "pairs").report
    assert report["used"] == 1
    assert sum(entry["count"] for entry in report["dropped"].values()) == 3
    lonely = prepare(
        [
            {"prompt": "q", "completions": ["a"], "scores": [1]},
            {"prompt": "q", "completions": ["a", "b"], "scores": [2, 2]},
        ],
        tokenizer,
        PrepareConfig(),
        tmp_path / "lonely",
    )
    batch = lonely.feedback_batch([0, 1])
    output = RewardObjective().loss({"policy.score": torch.zeros(3, 1)}, batch)
    assert (output.terms["reward"].count, output.metrics["no_pair"]) == (0, (2, 2))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "completions": ["a", "b"], "labels": ["good", "bad"]}, "labels"),
        ({"prompt": "q", "completions": ["a", "b"], "labels": [0.5, 1]}, "labels"),
        ({"prompt": "q", "completions": ["a", "b"], "labels": [True]}, "labels"),
        ({"prompt": "q", "completions": ["a", "b"], "scores": ["much", 1]}, "scores"),
    ],
)
def test_labels_and_scores_of_the_wrong_type_name_the_row(
    row: dict[str, object], message: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as error:
        prepare([row], ChatTokenizer.from_folder(tiny_model_folder), PrepareConfig(), tmp_path / "p")
    assert "row:1" in str(error.value)
