"""How long a user waits for words: help, a mistyped option, a model that is not there; alignite and TRL's command.

Each line is a process of its own, the median of several; what it prints and its exit code are checked first.

    python benches/python/startup.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Line:
    """A command, the exit codes that count as right, and what its output must hold."""

    name: str
    command: tuple[str, ...]
    codes: tuple[int, ...]
    says: str


ALIGNITE = str(BIN / "alignite")
RUN = ("--model", "org/name", "--data", "rows.jsonl", "--output_dir", "run")
TRL = (str(BIN / "trl"), "sft", "--model_name_or_path", "org/name", "--dataset_name", "org/rows", "--output_dir", "run")
LINES = (
    Line("import alignite", (sys.executable, "-c", "import alignite; print(alignite.__version__)"), (0,), "."),
    Line("alignite --help", (ALIGNITE, "--help"), (0,), "commands:"),
    Line("alignite sft --help", (ALIGNITE, "sft", "--help"), (0,), "--learning_rate"),
    Line("alignite sft, option mistyped", (ALIGNITE, "sft", *RUN, "--lerning_rate", "1"), (2,), "--learning_rate"),
    Line("alignite sft, TRL's option", (ALIGNITE, "sft", *RUN, "--bf16"), (2,), "dtype: bfloat16"),
    Line("alignite sft, hub id, offline", (ALIGNITE, "sft", *RUN), (4,), "cache"),
    Line("trl --help", (str(BIN / "trl"), "--help"), (0,), "sft"),
    Line("trl sft --help", (str(BIN / "trl"), "sft", "--help"), (0,), "--learning_rate"),
    Line("trl sft, option mistyped", (*TRL, "--use_cpu", "--lerning_rate", "1"), (1, 2), "lerning_rate"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| command | seconds (median) | fastest | slowest |\n|---|---|---|---|")
    for line in LINES:
        seconds = [timed(line) for _ in range(rounds + 1)][1:]  # the first fills the disk's cache
        print(
            f"| {line.name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |", flush=True
        )
    for package in ("alignite", "torch", "transformers", "trl"):
        print(f"{package} {importlib.metadata.version(package)}", end="  ")
    print()


def timed(line: Line) -> float:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_text("{}\n")
        begin = time.perf_counter()
        done = subprocess.run(line.command, cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    assert done.returncode in line.codes, (line.name, done.returncode, done.stderr[-2000:])
    assert line.says in done.stdout + done.stderr, (line.name, done.stdout[-500:], done.stderr[-500:])
    return seconds


if __name__ == "__main__":
    main()
