"""TRL's SFTTrainer on the rows and the adapter of a run of ours; prints its losses as JSON.

Run as ``python trl_sft.py MODEL PREPARED ADAPTER OPTIONS_JSON``; an empty ADAPTER means full fine-tuning.
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
from trl import SFTConfig, SFTTrainer
from trl_peer import QUIET, say

from alignite.data.prepared import PreparedSet


class Sequential(SFTTrainer):  # type: ignore[misc]
    """Unshuffled, with the loss of each update unrounded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        return loss


def main() -> None:
    model_folder, prepared_folder, adapter, options_json = sys.argv[1:]
    options = json.loads(options_json)
    prepared = PreparedSet(prepared_folder)
    rows: list[dict[str, list[int]]] = []
    for window in range(len(prepared)):
        ids, labels, _, segments = prepared.arrays(np.array([window]))
        assert len(segments) == 1
        rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model_folder)
    with tempfile.TemporaryDirectory() as output:
        args = SFTConfig(
            output_dir=output,
            **QUIET,
            loss_type="nll",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            max_length=None,
            **options,
        )
        trainer = Sequential(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()
    size = options["gradient_accumulation_steps"]
    # With a global count each micro-batch's loss is its share of the update's; transformers reports the share.
    shares = np.array(trainer.losses).reshape(-1, size)
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    norms = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
    say({"losses": shares.sum(axis=1).tolist(), "logged": logged, "norms": norms})


if __name__ == "__main__":
    main()
