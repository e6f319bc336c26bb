"""A run's folder as reports and model cards read it: what is there, and a list of what is not.

Nothing here is trusted: a run may have been killed while it wrote, or its files may come from elsewhere. Sizes and
types are checked, what cannot be used is left out, and ``Run.faults`` says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignite.config import SFTConfig, TrainingConfig
from alignite.config.preference import TRAINING_CONFIGS
from alignite.errors import DataError
from alignite.evaluation.report.metric_lines import Series, collect_series

_MAX_BYTES = 64 << 20
_MAX_METRICS_BYTES = 1 << 30
_MAX_LINE = 1 << 20
_COUNTS = ("rows", "used", "windows", "tokens", "scored_tokens", "longest")

Value = str | int | float | bool | list[Any] | None


@dataclass(frozen=True)
class Event:
    """A line of history.jsonl; ``details`` has what it says besides."""

    name: str
    step: int | None
    time: float | None
    details: dict[str, Any]

    def text(self, key: str) -> str:
        """A detail, or nothing."""
        value = self.details.get(key)
        return value if isinstance(value, str) else ""

    def mapping(self, key: str) -> dict[str, str]:
        """A detail that is a mapping, its values as text."""
        value = self.details.get(key)
        return {str(name): str(item) for name, item in value.items()} if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Count:
    """Rows to which something happened, and the first places."""

    count: int
    examples: list[str]


@dataclass(frozen=True)
class DataReport:
    """What became of a file's rows; ``counts`` has rows, used, windows, tokens, scored_tokens and longest."""

    format: str
    counts: dict[str, int]
    fill: float | None
    truncated: dict[str, Count]
    dropped: dict[str, Count]
    dropped_records: dict[str, Count]
    noticed: dict[str, Count]
    control_text: Count
    fingerprint: str
    reused: bool


@dataclass(frozen=True)
class Sample:
    """A prompt and what the model said to it before and after training."""

    prompt: str
    before: str | None
    after: str | None
    reference: str | None


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint that is on disk; ``size`` in bytes, as its manifest says."""

    name: str
    step: int
    size: int | None


@dataclass
class Run:
    """What a run's folder tells.

    ``train`` and ``evaluations`` hold a series a metric, the latter without ``eval_``; ``faults`` says what is
    missing or damaged.
    """

    folder: Path
    name: str
    config: dict[str, Value] = field(default_factory=dict)
    train: dict[str, Series] = field(default_factory=dict)
    evaluations: dict[str, Series] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    data: dict[str, DataReport] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    checkpoints: list[CheckpointFolder] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def method(self) -> str:
        """What the run did, such as ``sft`` or ``dpo``; empty where it does not say."""
        return next((found for event in self.history if (found := event.text("method"))), "")

    @property
    def options(self) -> type[TrainingConfig]:
        """The class that has the run's options."""
        return TRAINING_CONFIGS.get(self.method, SFTConfig)


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        DataError: there is no such folder, or it holds no run.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError("no such folder", where=str(path), fix="give the output_dir of a training run")
    if not any((path / name).is_file() for name in ("config.yaml", "metrics.jsonl", "history.jsonl")):
        raise DataError(
            "the folder holds no run",
            where=str(path),
            why="it has no config.yaml, metrics.jsonl or history.jsonl",
            fix="give the output_dir of a training run",
        )
    run = Run(path, path.resolve().name or str(path))
    run.config = _config(path / "config.yaml", run.faults)
    metrics = _objects(path / "metrics.jsonl", run.faults, _MAX_METRICS_BYTES)
    run.train, run.evaluations = collect_series(metrics, run.faults)
    run.history = [_event(line) for line in _objects(path / "history.jsonl", run.faults)]
    run.data = _data(path, run.faults)
    run.samples = _samples(_objects(path / "samples.jsonl", run.faults))
    run.checkpoints = _checkpoints(path)
    folders = [path / item.name for item in run.checkpoints]
    if run.checkpoints:
        state = _json(folders[-1] / "state.json", run.faults, f"{folders[-1].name}/state.json")
        run.best = _best(state.get("best"))
    adapters = [place / "adapter_config.json" for place in (path, *reversed(folders))]
    found = next((place for place in adapters if place.is_file()), None)
    run.adapter = _json(found, run.faults, "adapter_config.json") if found is not None else {}
    return run


def _objects(path: Path, faults: list[str], most: int = _MAX_BYTES) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one a line. Lines that are none are counted, a last one that is cut is named."""
    bad: list[int] = []
    number, line = 0, b""
    try:
        if not _usable(path, faults, path.name, most):
            return
        with open(path, "rb") as file:
            while piece := file.readline(_MAX_LINE):
                number, line = number + 1, piece
                try:
                    value = json.loads(line) if line.strip() else {}
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    yield value
                else:
                    bad.append(number)
    except OSError as error:
        faults.append(f"{path.name} cannot be read: {error.strerror}")
    if bad and bad[-1] == number and not line.endswith(b"\n"):
        faults.append(f"the last line of {path.name} is cut, as when a run is killed; it was left out")
        bad.pop()
    if bad:
        lines = "1 line" if len(bad) == 1 else f"{len(bad)} lines"
        faults.append(f"{lines} of {path.name} cannot be read (first: line {bad[0]}); left out")


def _usable(path: Path, faults: list[str], name: str, most: int) -> bool:
    if not path.is_file():  # a pipe or a device is none either, and reading it might never end
        faults.append(f"{name} is not there" if not path.exists() else f"{name} is not a file")
        return False
    if path.stat().st_size > most:
        faults.append(f"{name} is larger than {most >> 20} MiB; it was left out")
        return False
    return True


def _json(path: Path, faults: list[str], name: str) -> dict[str, Any]:
    try:
        if not _usable(path, faults, name, _MAX_BYTES):
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        faults.append(f"{name} cannot be read")
        return {}
    return value


def _config(path: Path, faults: list[str]) -> dict[str, Value]:
    import yaml

    try:
        if not _usable(path, faults, path.name, _MAX_LINE):
            return {}
        values = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        values = None
    if not isinstance(values, dict):
        faults.append("config.yaml cannot be read")
        return {}
    good = {str(name): value for name, value in values.items() if _flat(value)}
    if len(good) < len(values):
        faults.append("config.yaml holds values that no option has; they were left out")
    return good


def _flat(value: object) -> bool:
    """Plain values and lists of them: what options are, and nothing that grows when it is written out."""
    items = value if isinstance(value, list) else [value]
    return all(item is None or isinstance(item, str | int | float | bool) for item in items)


def _event(line: Mapping[str, Any]) -> Event:
    name = line.get("event")
    details = {key: value for key, value in line.items() if key not in ("event", "step", "time")}
    return Event(name if isinstance(name, str) else "?", _whole(line.get("step")), _real(line.get("time")), details)


def _whole(value: object) -> int | None:
    """A count, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def _real(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number past the largest float
        return None


def _data(path: Path, faults: list[str]) -> dict[str, DataReport]:
    if (path / "data.json").exists():
        found = _json(path / "data.json", faults, "data.json")
    else:  # the prepared sets' own reports, which an older run has
        sets = {"train": path / "prepared" / "report.json", "eval": path / "prepared-eval" / "report.json"}
        found = {key: _json(file, faults, file.name) for key, file in sets.items() if file.is_file()}
        if not found:
            faults.append("data.json is not there")
    return {key: _report(found[key]) for key in ("train", "eval") if isinstance(found.get(key), dict) and found[key]}


def _report(values: Mapping[str, Any]) -> DataReport:
    def counts(key: str) -> dict[str, Count]:
        group = values.get(key)
        return {str(name): _count(item) for name, item in group.items()} if isinstance(group, dict) else {}

    numbers = {name: _whole(values.get(name)) for name in _COUNTS}
    return DataReport(
        format=str(values.get("format", "")),
        counts={name: number for name, number in numbers.items() if number is not None},
        fill=_real(values.get("fill")),
        truncated=counts("truncated"),
        dropped=counts("dropped"),
        dropped_records=counts("dropped_records"),
        noticed=counts("noticed"),
        control_text=_count(values.get("control_text")),
        fingerprint=str(values.get("fingerprint", "")),
        reused=values.get("reused") is True,
    )


def _count(value: object) -> Count:
    values = value if isinstance(value, dict) else {}
    examples = values.get("examples")
    return Count(
        _whole(values.get("count")) or 0, [str(item) for item in examples[:5]] if isinstance(examples, list) else []
    )


def _samples(lines: Iterator[dict[str, Any]]) -> list[Sample]:
    """Pairs of answers in the order of their prompts; of several answers after training the latest counts."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    reference: dict[str, str] = {}
    for line in lines:
        prompt, answer, kind = line.get("prompt"), line.get("answer"), line.get("kind")
        if isinstance(prompt, str) and isinstance(answer, str):
            if kind == "before":
                before.setdefault(prompt, answer)
            elif kind == "after":
                after[prompt] = answer
            if isinstance(line.get("reference"), str):
                reference[prompt] = line["reference"]
    return [
        Sample(key, before.get(key), after.get(key), reference.get(key)) for key in dict.fromkeys([*before, *after])
    ]


def _checkpoints(path: Path) -> list[CheckpointFolder]:
    found = []
    for folder in path.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isascii() and number.isdecimal() and len(number) < 16 and folder.is_dir():
            files = _json(folder / "MANIFEST.json", [], "").get("files")
            entries = files.values() if isinstance(files, dict) else []
            sizes = [_whole(entry.get("size")) for entry in entries if isinstance(entry, dict)]
            size = sum(item for item in sizes if item is not None) if sizes else None
            found.append(CheckpointFolder(folder.name, int(number), size))
    return sorted(found, key=lambda item: item.step)


def _best(value: object) -> dict[str, Any]:
    values = value if isinstance(value, dict) else {}
    metric, number, step = values.get("metric"), _real(values.get("value")), _whole(values.get("step"))
    if not isinstance(metric, str) or number is None or step is None:
        return {}
    return {"metric": metric, "value": number, "step": step}
