"""An error about a loss that is no number names the rows that it comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from feedback_batches import make_batch, pair, random_columns

from alignite.config import DPOConfig, RewardConfig
from alignite.errors import AligniteError, NumericsError
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.reward import RewardObjective
from alignite.peft import LoraConfig
from alignite.trainers.methods import DPOTrainer
from alignite.trainers.reward import RewardTrainer
from alignite.training.suspects import named, suspects
from alignite.types import LossOutput

PAIRS: list[dict[str, Any]] = [{"prompt": "Count.", "chosen": f"one {n}", "rejected": f"no {n}"} for n in range(6)]
OPTIONS: dict[str, Any] = {
    "max_steps": 2, "per_device_train_batch_size": 3, "shuffle": False, "num_samples": 0, "save_total_limit": 1,
}  # fmt: skip


def test_the_records_of_what_is_not_finite_are_found() -> None:
    batch = replace(make_batch([pair(), pair(), pair()]), places=["a:1", "a:2", "b:1"])
    columns = {name: value.detach() for name, value in random_columns(batch).items()}
    assert suspects(batch, columns) == ["a:1", "a:2", "b:1"]  # none is to blame more than another
    columns["policy.logp"][8] = float("inf")
    assert suspects(batch, columns) == ["a:2"]
    scores = torch.zeros(6, 2)
    scores[5, 1] = float("nan")
    assert suspects(batch, {"policy.score": scores, "kto.z0": torch.tensor(0.0)}) == ["b:1"]
    assert suspects(replace(batch, places=()), columns) == []
    assert named([f"a:{n}" for n in range(10)]).endswith("a:7 and 2 more")


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_a_run_names_the_row(kind: str, tiny_model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    objective: Any = DPOObjective if kind == "dpo" else RewardObjective
    column = "policy.logp" if kind == "dpo" else "policy.score"
    before = objective.loss

    def poisoned(self: Any, columns: Any, batch: Any) -> LossOutput:
        at = [n for n, place in enumerate(batch.places) if place.endswith(":5")]
        if at:
            replies = torch.from_numpy(batch.records == at[0])
            of = replies[batch.reply_of] if column == "policy.logp" else replies
            columns[column] = columns[column].masked_fill(
                of if columns[column].dim() == 1 else of[:, None], float("nan")
            )
        found: LossOutput = before(self, columns, batch)
        return found

    monkeypatch.setattr(objective, "loss", poisoned)
    run = tmp_path / "run"
    trainer: Any
    if kind == "dpo":
        args = DPOConfig(output_dir=str(run), **OPTIONS)
        trainer = DPOTrainer(tiny_model_folder, None, args, file, peft_config=LoraConfig(r=2))
    else:
        trainer = RewardTrainer(tiny_model_folder, RewardConfig(output_dir=str(run), **OPTIONS), file)
    with pytest.raises(NumericsError) as error:
        trainer.train()
    assert f"{file}:5" in str(error.value)
    assert f"{file}:4" not in str(error.value)
    assert isinstance(error.value, AligniteError)


def test_a_margin_that_is_no_degree_names_its_row(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [*PAIRS[:2], PAIRS[2] | {"margin": 0.5}]
    args = RewardConfig(output_dir=str(tmp_path / "run"), margin="llama2_small", **OPTIONS)
    with pytest.raises(AligniteError, match="no degree") as error:
        RewardTrainer(tiny_model_folder, args, rows).train()
    assert "row:3" in str(error.value)
