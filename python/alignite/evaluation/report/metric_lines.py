"""The lines of metrics.jsonl as one series a metric."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_MAX_METRICS = 100


@dataclass(frozen=True)
class Series:
    """A metric over updates: ``steps`` rise strictly; ``values`` are NaN where the file says null."""

    steps: Numbers
    values: Numbers

    @property
    def finite(self) -> Series:
        """Without what is not a number."""
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])

    @property
    def last(self) -> float:
        """The last value, which may be NaN."""
        return float(self.values[-1])


class _Column:
    """Values as they come; arrays, because a long run has millions."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")

    def series(self) -> tuple[Series, int]:
        """In the order of steps, the last value of each; and how many values were of a step that came again."""
        backwards = np.array(self.steps, dtype=np.float64)[::-1]
        steps, index = np.unique(backwards, return_index=True)
        return Series(steps, np.array(self.values)[::-1][index]), len(backwards) - len(steps)


def collect_series(
    lines: Iterable[Mapping[str, Any]], faults: list[str]
) -> tuple[dict[str, Series], dict[str, Series]]:
    """Training metrics and evaluation metrics (without ``eval_``) by name; ``time`` is among the former.

    A step that stands twice counts as the last line says; ``faults`` takes what was found wrong.
    """
    train: dict[str, _Column] = {}
    evaluations: dict[str, _Column] = {}
    without = 0
    for line in lines:
        step = line.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or not 0 <= step < 1 << 53:
            without += bool(line)
            continue
        is_evaluation = any(name.startswith("eval_") for name in line)
        group = evaluations if is_evaluation else train
        for key, value in line.items():
            number, name = _number(value), key.removeprefix("eval_")
            if key == "step" or number is None or (key == "time" and is_evaluation):
                continue
            if name in group or len(group) < _MAX_METRICS:
                column = group.setdefault(name, _Column())
                column.steps.append(step)
                column.values.append(number)
    if without:
        faults.append(f"{_lines(without)} of metrics.jsonl without a step; left out")
    again = 0
    found: list[dict[str, Series]] = [{}, {}]
    for target, columns in zip(found, (train, evaluations), strict=True):
        for name, column in columns.items():
            target[name], repeated = column.series()
            again = max(again, repeated)
    if again:
        faults.append(f"metrics.jsonl has {_lines(again)} of a step that comes again; the last line of a step counts")
    nulls = sum(int(np.isnan(series.values).sum()) for group in found for series in group.values())
    if nulls:
        faults.append(f"{nulls} numbers in metrics.jsonl are not finite; the curves have gaps there")
    return found[0], found[1]


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _number(value: object) -> float | None:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def moving_average(values: Numbers, span: int) -> Numbers:
    """The exponential moving average whose weights have their centre ``(span - 1) / 2`` values back.

    It is free of the start's bias (the weights are normalized), and values that are not numbers are stepped over.
    """
    keep = 1 - 2 / (span + 1)
    total = weight = 0.0
    found = np.empty_like(values)
    for index, value in enumerate(values.tolist()):
        if value - value == 0.0:
            total, weight = keep * total + value, keep * weight + 1.0
        found[index] = total / weight if weight else math.nan
    return np.where(np.isfinite(values), found, math.nan)


def decimate(series: Series, most: int = 2000) -> Series:
    """At most about ``most`` points that look the same: of each stretch the least, the largest and one gap."""
    count = len(series.values)
    if count <= most:
        return series
    keep = {0, count - 1}
    edges = np.linspace(0, count, most // 2 + 1).astype(int)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = series.values[start:end]
        finite = np.isfinite(part)
        if not finite.all():
            keep.add(start + int(np.argmin(finite)))
        if finite.any():
            keep |= {start + int(np.nanargmin(part)), start + int(np.nanargmax(part))}
    index = np.array(sorted(keep))
    return Series(series.steps[index], series.values[index])
