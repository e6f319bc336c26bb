"""TRL's DPOTrainer on the pairs and the adapter of a run of ours; prints its losses as JSON.

Run as ``python trl_dpo.py MODEL PREPARED ADAPTER OPTIONS_JSON``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl_peer import QUIET, say

from alignite.data.prepared import PreparedSet


class Sequential(DPOTrainer):  # type: ignore[misc]
    """Unshuffled, on ids as they are given, by plain SGD, with each loss unrounded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, *_: Any) -> torch.optim.Optimizer:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=self.args.learning_rate)
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        return loss


def main() -> None:
    model_folder, prepared_folder, adapter, options_json = sys.argv[1:]
    prepared = PreparedSet(prepared_folder)
    rows = []
    for window in range(len(prepared)):
        ids, _, _, segments = prepared.arrays(np.array([window]))
        parts = [ids[start : start + length].tolist() for start, length, _ in segments.tolist()]
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True)))
    found = {}
    for name, options in json.loads(options_json).items():
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        with tempfile.TemporaryDirectory() as output:
            trainer = Sequential(
                model=PeftModel.from_pretrained(model, adapter, is_trainable=True),
                args=DPOConfig(
                    output_dir=output,
                    **QUIET,
                    max_length=None,
                    max_grad_norm=0.0,
                    lr_scheduler_type="constant",
                    **options,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=PreTrainedTokenizerFast.from_pretrained(model_folder),
            )
            trainer.train()
        logged = [line for line in trainer.state.log_history if "rewards/margins" in line]
        found[name] = {"losses": trainer.losses, "metrics": logged}
    say(found)


if __name__ == "__main__":
    main()
