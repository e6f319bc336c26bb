"""Trains in child processes that are killed with SIGKILL, and prints the hashes of what they end with as JSON.

Run as ``python kill_and_resume.py FOLDER lora|full``. The parent imports everything once and forks; it never
computes, so that no thread of a math library is lost in a fork.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_model import make_model

from alignite.config import SFTConfig
from alignite.trainers.sft import SFTTrainer
from alignite.training import checkpoint

STEPS = 24


def write_data(file: Path) -> None:
    rows = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}." * (n % 4 + 1)} for n in range(21)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(folder: Path, run: Path, kind: str) -> None:
    config = SFTConfig(
        data=[str(folder / "data.jsonl")],
        output_dir=str(run),
        max_steps=STEPS,
        save_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        warmup_steps=2,
        use_peft=kind == "lora",
        lora_r=4,
        lora_dropout=0.1,
    )
    SFTTrainer(str(folder / "model"), config).train()


def child(body: Callable[[], None], kill_after: float | None = None) -> int:
    """Run in a process of its own; returns its exit status, -9 when it was killed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            torch.set_num_threads(1)
            body()
            status = 0
        except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's code
            traceback.print_exc(file=sys.stdout)
        finally:
            sys.stdout.flush()
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(function: str, call: int, body: Callable[[], None]) -> Callable[[], None]:
    """``body``, killed just before the given call of a function that checkpoint.py uses."""

    def patched() -> None:
        plain: Callable[..., Any] = getattr(checkpoint, function)
        calls = 0

        def deadly(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)

        setattr(checkpoint, function, deadly)
        body()

    return patched


def hashes(run: Path) -> dict[str, str]:
    last = run / f"checkpoint-{STEPS}"
    weights = sorted(path.name for path in last.glob("*model.safetensors"))
    files = [last / name for name in (*weights, "optimizer.safetensors", "random.safetensors")]
    files += [run / name for name in weights]
    return {path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in lines]


def main() -> None:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    # Making the model computes, so a child does it.
    assert child(lambda: make_model(folder / "model")) == 0
    write_data(folder / "data.jsonl")
    start = time.perf_counter()
    assert child(lambda: train(folder, folder / "straight", kind)) == 0
    seconds = time.perf_counter() - start

    run = folder / "killed"

    def body() -> None:
        train(folder, run, kind)

    statuses, steps = [], []
    random.seed(int(time.time()))
    for kill in (
        ("_sha256", 2),  # while the first checkpoint is written
        0.1 + 0.3 * random.random(),
        ("sync_folder", 3),  # whole, but not renamed yet
        ("sync_folder", 2),  # renamed, the parent not synced
        ("_discard", 1),  # before an old one goes
        ("save_file", 3),  # between the files of one
        0.3 + 0.4 * random.random(),
        0.3 + 0.4 * random.random(),
    ):
        if isinstance(kill, tuple):
            statuses.append(child(killed_at(*kill, body)))
        else:
            statuses.append(child(body, kill_after=seconds * kill))
        steps.append(max((checkpoint._step_of(path) for path in checkpoint.list_checkpoints(run)), default=0))
    assert child(body) == 0
    assert not list(run.glob(".checkpoint-*")), "what killed processes left is swept away"
    assert not list(run.glob(".trash-*"))
    found = {
        "statuses": statuses,
        "steps": steps,
        "straight": hashes(folder / "straight"),
        "killed": hashes(run),
        "same_metrics": metrics(folder / "straight") == metrics(run),
        "finished_again": child(body),
    }
    print("RESULT " + json.dumps(found))


if __name__ == "__main__":
    main()
