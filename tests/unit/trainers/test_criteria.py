"""Records that are about one criterion: from the file to the head of a reward model that learns of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite.cli.main import main
from alignite.config import PrepareConfig, PreviewConfig, RewardConfig
from alignite.data import ChatTokenizer, prepare, preview
from alignite.errors import ConfigError, DataError
from alignite.models.reward_files import load_reward_model

NAMES = ["helpful", "harmless"]
PAIR: dict[str, Any] = {"prompt": "q", "chosen": "yes it is", "rejected": "no"}
RANKED: dict[str, Any] = {"prompt": "q", "completions": ["a", "bb", "c"], "scores": [2, 1, 0]}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


@pytest.mark.parametrize("row", [PAIR, RANKED, {"query": "q", "responses": ["a", "b"], "scores": [1, 0]}])
def test_a_criterion_goes_by_name_or_place(row: dict[str, Any], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [row | {"criterion": given} for given in ("harmless", 0, "helpful", 1)] + [row, row | {"criterion": None}]
    prepared = prepare(rows, tokenizer, PrepareConfig(criteria=NAMES), tmp_path / "set")
    batch = prepared.feedback_batch(np.arange(6))
    assert batch.given["criterion"].tolist() == [1, 0, 0, 1, -1, -1]
    assert set(prepared.origins([0]).criteria.tolist()) == {1}
    assert prepared.report["noticed"]["a comparison without a criterion"] == {
        "count": 2,
        "examples": ["row:5", "row:6"],
    }
    assert prepared.report["unused_columns"] == []
    assert "criterion" not in prepare([row], tokenizer, PrepareConfig(), tmp_path / "none").feedback_batch([0]).given


def test_windows_of_several_records_keep_the_criteria_apart(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [PAIR | {"criterion": n % 2} for n in range(4)] + [PAIR]
    config = PrepareConfig(criteria=NAMES, packing="bfd", max_length=400)
    prepared = prepare(rows, tokenizer, config, tmp_path / "set")
    assert len(prepared) < 5
    batch = prepared.feedback_batch(np.arange(len(prepared)))
    order = prepared.origins(np.arange(len(prepared))).row_ids[batch.replies][::2].tolist()
    assert batch.given["criterion"].tolist() == [-1 if row == 4 else row % 2 for row in order]


@pytest.mark.parametrize("bad", ["kind", 2, -1, 0.5, True, ["helpful"]])
def test_a_criterion_that_there_is_not_is_a_bad_row(bad: Any, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [PAIR | {"criterion": "helpful"}, PAIR | {"criterion": bad}]
    report = prepare(rows, tokenizer, PrepareConfig(criteria=NAMES), tmp_path / "set").report
    ((reason, entry),) = report["dropped"].items()
    assert "criterion" in reason
    assert entry == {"count": 1, "examples": ["row:2"]}
    assert report["bad"] == 1
    with pytest.raises(DataError, match="none of helpful, harmless") as error:
        prepare(rows, tokenizer, PrepareConfig(criteria=NAMES, on_bad_row="error"), tmp_path / "strict")
    assert "row:2" in str(error.value)


def test_without_names_a_criterion_is_not_read_and_that_is_told(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [PAIR | {"criterion": {"any": "thing"}}, PAIR]
    report = prepare(rows, tokenizer, PrepareConfig(), tmp_path / "set").report
    assert (report["used"], list(report["noticed"])) == (
        2,
        ["a criterion, which is read only where the option criteria names it"],
    )
    assert preview(rows, tokenizer, PreviewConfig()).report["noticed"] == report["noticed"]


def test_names_and_heads_must_go_together() -> None:
    with pytest.raises(ConfigError, match="num_heads is 3"):
        RewardConfig(criteria=NAMES, num_heads=3).validate()
    for names in (["a", "a"], ["a", ""]):
        with pytest.raises(ConfigError, match="name of its own"):
            PrepareConfig(criteria=names).validate()


def test_each_head_learns_from_the_records_about_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    # The two criteria want opposite things of the same replies, so that one head for both would learn nothing.
    rows: list[dict[str, Any]] = []
    for n in range(8):
        long, short = f"{n} is a long answer", f"{n}"
        rows.append({"prompt": f"Say {n}.", "chosen": long, "rejected": short, "criterion": "helpful"})
        rows.append({"prompt": f"Say {n}.", "completions": [long, short], "scores": [0, 1], "criterion": "harmless"})
    for kind in ("chosen", "completions"):
        lines = [json.dumps(row) + "\n" for row in rows if kind in row]
        (tmp_path / f"{kind}.jsonl").write_text("".join(lines))
    words = ["reward", "--model", str(tiny_model_folder), "--output_dir", str(tmp_path / "run"), "--num_samples", "0"]
    words += ["--data", str(tmp_path / "chosen.jsonl"), str(tmp_path / "completions.jsonl"), "--max_steps", "12"]
    words += ["--learning_rate", "3e-3", "--per_device_train_batch_size", "16", "--criteria", *NAMES]
    assert main(words) == 0
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in metrics if "accuracy/helpful" in line][-1]
    assert (last["accuracy/helpful"], last["accuracy/harmless"]) == (1.0, 1.0)
    assert load_reward_model(tmp_path / "run").score.weight.shape == torch.Size([2, 32])  # type: ignore[union-attr]
