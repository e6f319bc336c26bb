"""Each method raises, on prompts that it was not trained on, what it is there to raise; and scorers pick right ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite.config import PrepareConfig, PRMConfig, RewardConfig
from alignite.config.preference import METHOD_CONFIGS
from alignite.data import ChatTokenizer, prepare
from alignite.evaluation.best_of_n import Pool, best_of_n_curve
from alignite.evaluation.loss import evaluate_loss
from alignite.evaluation.math_answers import grade_answer
from alignite.models.loading import load_model
from alignite.objectives import SimPOObjective
from alignite.objectives.hir import HindsightRelabel, contrast_rows
from alignite.scoring.process_reward import ProcessRewardModel, outcome_steps
from alignite.scoring.reward import RewardModel
from alignite.trainers.methods import trainer_of
from alignite.trainers.reward import PRMTrainer, RewardTrainer

# To follow a marker takes longer than to prefer a word.
FOLLOWED = 150
Rows = list[dict[str, Any]]
OPTIONS: dict[str, Any] = {"max_steps": 30, "learning_rate": 3e-3, "num_samples": 0, "save_steps": 0, "seed": 1}


def ranked(numbers: range) -> Rows:
    """The good reply says yes, the bad one no, the middle one both; their lengths tell nothing."""
    return [
        {
            "prompt": f"Is {n} a number?",
            "completions": ["no " * (1 + n % 3), "yes " * (1 + n % 2), "yes no"],
            "scores": [0.0, 1.0, 0.5],
        }
        for n in numbers
    ]


def pairs(rows: Rows) -> Rows:
    return [
        {"prompt": row["prompt"], "chosen": row["completions"][1], "rejected": row["completions"][0]} for row in rows
    ]


def labelled(rows: Rows) -> Rows:
    return [
        {"prompt": row["prompt"], "completion": text, "label": label}
        for row in rows
        for text, label in zip(row["completions"], (False, True), strict=False)
    ]


def two(rows: Rows) -> Rows:
    return [row | {"completions": row["completions"][:2], "scores": row["scores"][:2]} for row in rows]


def instructions(rows: Rows) -> Rows:
    return contrast_rows(HindsightRelabel(good="+", bad="-")(two(rows)), size=2)


def marked(before: str = "", after: str = "") -> Callable[[Rows], Rows]:
    return lambda rows: [row | {"prompt": before + row["prompt"] + after} for row in rows]


def as_they_are(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Case:
    """What a method trains on, and the rankings on which its margin is taken, made of ranked rows."""

    rows: Callable[[Rows], Rows] = as_they_are
    held_out: Callable[[Rows], Rows] = as_they_are
    steps: int = 30
    options: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "kto": Case(labelled),
    "coh": Case(pairs, marked(after="\n+"), FOLLOWED, {"good": "+", "bad": "-", "forms": ["p", "n"]}),
    "quark": Case(as_they_are, marked(before="<0> "), FOLLOWED, {"num_quantiles": 3, "marker": "<{quantile}> "}),
    "hir": Case(two, instructions, options={"good": "+", "bad": "-", "group_size": 2}),
    "figa": Case(pairs),
    "contrast": Case(instructions, instructions),
}


def margin(model: torch.nn.Module, folder: Path, rows: Rows, work: Path) -> float:
    """The mean over pairs of the better reply's log-probability a token less the worse one's."""
    prepared = prepare(rows, ChatTokenizer.from_folder(folder), PrepareConfig(), work)
    objective = SimPOObjective(beta=1.0, simpo_gamma=0.0)
    found = evaluate_loss({"policy": model}, prepared, objective, make_batch=prepared.feedback_batch)
    return found["eval_rewards/margins"]


@pytest.mark.parametrize("method", METHOD_CONFIGS)
def test_the_margin_of_prompts_that_were_held_out_rises(method: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    case = CASES.get(method, Case())
    options = OPTIONS | {"output_dir": str(tmp_path / "run"), "max_steps": case.steps}
    config = METHOD_CONFIGS[method](model=str(tiny_model_folder), **options, **case.options)
    trainer = trainer_of(method, config)
    trainer._train_dataset = case.rows(ranked(range(32)))
    trainer.train()
    assert trainer.model is not None
    held_out = case.held_out(ranked(range(50, 62)))
    before = margin(load_model(tiny_model_folder), tiny_model_folder, held_out, tmp_path / "before")
    after = margin(trainer.model, tiny_model_folder, held_out, tmp_path / "after")
    assert after > before + 0.1


def solved(numbers: range) -> Rows:
    """Sums with four solutions, of which those that subtract are wrong; the last step is the answer."""
    return [
        {
            "prompt": f"How many are {n} and {n % 5 + 1}?",
            "truth": f"#### {n + n % 5 + 1}",
            "completions": [
                f"{first}{sign}{n % 5 + 1}\nA: {n + int(sign + str(n % 5 + 1))}"
                for first, sign in ((n, "+"), (n, "-"), (f"I take {n}", "-"), (f"I take {n}", "+"))
            ],
        }
        for n in numbers
    ]


@pytest.mark.parametrize("kind", ["reward", "process"])
def test_the_best_of_n_by_a_trained_scorer_is_the_right_one(kind: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    train, held_out = solved(range(10, 34)), solved(range(60, 72))
    for row in [*train, *held_out]:
        row["scores"] = [float(grade_answer(text, row["truth"])) for text in row["completions"]]
        assert sum(row["scores"]) == 2
    options = OPTIONS | {"output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 8}
    if kind == "reward":
        rewards = RewardTrainer(tiny_model_folder, RewardConfig(**options), train)
        rewards.train()
        assert rewards.model is not None
        scorer: Any = RewardModel(rewards.model, tokenizer)
    else:
        steps = [
            outcome_steps(row["prompt"], text, score > 0)
            for row in train
            for text, score in zip(row["completions"], row["scores"], strict=True)
        ]
        process = PRMTrainer(tiny_model_folder, PRMConfig(**options), steps)
        process.train()
        assert process.model is not None
        scorer = ProcessRewardModel(process.model, tokenizer)
    pools = [Pool(scorer.score([row["prompt"]] * 4, row["completions"]), np.array(row["scores"])) for row in held_out]
    curve = best_of_n_curve(pools)
    assert curve[1] == pytest.approx(0.5)
    assert curve[4] > 0.9
    assert curve[1] < curve[2] < curve[3] <= curve[4]
