"""TRL's RewardTrainer on the rows and the start of a reward model of ours; prints scores and losses as JSON.

Run as ``python trl_reward.py REWARD_FOLDER OPTIONS_JSON``; the options are runs by their names, each with rows of
chosen_ids, rejected_ids and margin, the batch size, the learning rate of plain SGD, the coefficient of centring and the
padding id.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference
from trl_peer import QUIET, say


class AsGiven(RewardTrainer):  # type: ignore[misc]
    """Rows that are ids already stay as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def run(folder: str, options: dict[str, Any], output: str) -> dict[str, list[float]]:
    rows: list[dict[str, Any]] = options["rows"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    args = RewardConfig(
        output_dir=output,
        **QUIET,
        disable_dropout=True,
        center_rewards_coefficient=options["center"],
    )
    trainer = AsGiven(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    model = trainer.model
    model.config.pad_token_id = options["pad"]
    collator = DataCollatorForPreference(pad_token_id=options["pad"])
    optimizer = torch.optim.SGD(model.parameters(), lr=options["learning_rate"])
    scores: list[float] = []
    losses = []
    for start in range(0, len(rows), options["batch_size"]):
        inputs = collator(rows[start : start + options["batch_size"]])
        loss, outputs = trainer.compute_loss(model, inputs, return_outputs=True)
        chosen, rejected = outputs.logits[:, 0].detach().chunk(2)
        scores += torch.stack([chosen, rejected], dim=1).flatten().tolist()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"scores": scores, "losses": losses}


def main() -> None:
    folder, options_json = sys.argv[1:]
    with tempfile.TemporaryDirectory() as output:
        found = {name: run(folder, options, output) for name, options in json.loads(options_json).items()}
    say(found)


if __name__ == "__main__":
    main()
