"""Where numbers go: metrics.jsonl always, a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from alignite.files import cannot_write
from alignite.training import distributed

_SHOWN = ("loss", "eval_loss", "mean_token_accuracy", "grad_norm", "learning_rate", "tokens_per_second")


class MetricsWriter:
    """Appends one JSON object a line, ``step`` and ``time`` (seconds since the epoch) first.

    Args:
        path: metrics.jsonl, or None for a rank that writes nothing.
        total: updates in the run, for the display.
        size: cut the file back to this many bytes first, as a resumed run does.
        display: whether people are shown anything.
    """

    def __init__(
        self, path: Path | None, total: int | None = None, size: int | None = None, display: bool = True
    ) -> None:
        self._path = path
        self._total, self._display = total, display
        self._progress: Any = None
        self._task: Any = None
        if path is not None:
            try:
                if size is not None and path.exists():
                    os.truncate(path, min(size, path.stat().st_size))
                self._file = open(path, "a" if size is not None else "w", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                raise cannot_write(path, error) from error

    def __enter__(self) -> MetricsWriter:
        if self._path is not None and self._display and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._progress.start()
            self._task = self._progress.add_task("", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._path is not None:
            with suppress(OSError):  # what could not be written was reported when it was
                self._file.close()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write a line; numbers that are not finite become null, which JSON has a word for."""
        if self._path is None:
            return
        clean = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        try:
            self._file.write(json.dumps({"step": step, "time": time.time(), **clean}) + "\n")
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error
        text = "  ".join(f"{name} {_short(metrics[name])}" for name in _SHOWN if name in metrics)
        if self._progress is not None:
            self._progress.update(self._task, completed=step, description=text)
        elif self._display:
            of = f"/{self._total}" if self._total else ""
            print(f"step {step}{of}  {text}", file=sys.stderr)  # noqa: T201 - the display of a run

    def size(self) -> int:
        """Bytes written so far, which a checkpoint keeps."""
        return self._file.tell() if self._path is not None else 0


@dataclass
class Totals:
    """Metrics since the last line: losses averaged over updates, objective metrics over their own counts."""

    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, sums: Mapping[str, float], norm: float, tokens: int, seconds: float) -> None:
        self.updates += 1
        self.tokens += tokens
        self.seconds += seconds
        self.norm = norm
        for name, value in sums.items():
            add_to(self.sums, name, value)

    def metrics(self) -> dict[str, float]:
        found = {"loss": self.sums.get("loss", 0.0) / max(self.updates, 1), "grad_norm": self.norm}
        for key, total in self.sums.items():
            kind, _, name = key.partition("/")
            if kind == "sum":
                count = self.sums[f"count/{name}"]
                if count > 0:  # what nothing was counted for has no mean; 0 would look like one
                    found[name] = total / count
        found["tokens_per_second"] = self.tokens * distributed.world() / max(self.seconds, 1e-9)
        return found


def add_to(sums: dict[str, float], name: str, value: float) -> None:
    """Add to a named sum that may not be there yet."""
    sums[name] = sums.get(name, 0.0) + value


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.4g}"
