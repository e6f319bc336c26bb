"""What happened to a run: history.jsonl, one object an event, never cut back."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from alignite.files import cannot_write
from alignite.training import distributed
from alignite.training.checkpoint import versions
from alignite.types import Callback, RunState

HISTORY_FILE = "history.jsonl"


class History(Callback):
    """Writes the events ``start``, ``resume``, ``save`` and ``end``.

    A run that was killed has a ``start`` or ``resume`` without an ``end`` after it.
    """

    def on_train_begin(self, run: RunState) -> None:
        event = "resume" if run.step else "start"
        _append(run, event, method=run.config.get("method"), versions=versions(), machine=machine(run))

    def on_save(self, run: RunState, folder: Path) -> None:
        _append(run, "save", folder=folder.name)

    def on_train_end(self, run: RunState) -> None:
        _append(run, "end", outcome=run.outcome, reason=run.reason)


def method_before(folder: Path) -> str:
    """The method of the last run that began or went on in a folder; empty where none says it."""
    try:
        lines = (folder / HISTORY_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            method = json.loads(line).get("method")
        except (ValueError, AttributeError):  # cut by a kill
            continue
        if isinstance(method, str):
            return method
    return ""


def machine(run: RunState) -> dict[str, Any]:
    """What the run's speed depends on."""
    device = str(run.config.get("device", "cpu"))
    has_gpu = torch.cuda.is_available() and device != "cpu"
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "device": torch.cuda.get_device_name(0) if has_gpu else "cpu",
        "ranks": distributed.world(),
    }


def _append(run: RunState, event: str, **values: Any) -> None:
    path = run.run_dir / HISTORY_FILE
    line = {"event": event, "step": run.step, "time": time.time()} | values
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error
