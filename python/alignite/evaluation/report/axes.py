"""Axes: where ticks stand, what they say, and where a value lies between the ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alignite.evaluation.report.metric_lines import Numbers

_LOG_FROM = 100.0


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``, both in the values' unit; ticks are (value, label)."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    log: bool = False

    def place(self, values: Numbers) -> Numbers:
        """Values as shares of the axis, 0 at its low end; what lies outside is moved to the nearer end."""
        if self.log:
            values = np.log(np.maximum(values, self.low))
            low, high = math.log(self.low), math.log(self.high)
        else:
            low, high = self.low, self.high
        # Halves, since the ends of a metric that went astray may lie further apart than the largest float.
        return np.clip((values / 2 - low / 2) / (high / 2 - low / 2), 0.0, 1.0)

    def at(self, value: float) -> float:
        return float(self.place(np.array([value]))[0])


def step_axis(last: float) -> Axis:
    """Updates from 0 to the last one."""
    high = max(last, 1.0)
    step = max(1.0, _nice(high / 5))
    return Axis(0.0, high, [(value, f"{value:,.0f}") for value in _multiples(0.0, high, step)])


def value_axis(values: Numbers, *, zero: bool = False, log: bool = False) -> Axis:
    """An axis for finite values.

    Args:
        zero: it begins at zero, when no value is below.
        log: a logarithmic one is wanted when the values are above zero and span two orders of magnitude.
    """
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if log and low > 0 and high / low >= _LOG_FROM:
        return _log_axis(low, high)
    zero = zero and low >= 0
    low = 0.0 if zero else low
    if high / 2 - low / 2 <= abs(high) * 1e-9:
        margin = abs(high) * 0.1 or 1.0
        low, high = (0.0 if zero else low - margin), high + margin
    margin = (high / 2 - low / 2) * 0.1
    low, high = (0.0 if zero else low - margin), high + margin
    if low < 0 and (values >= 0).all():
        low = 0.0
    step = _nice(high / 6 - low / 6)
    return Axis(low, high, [(value, _label(value, step)) for value in _multiples(low, high, step)])


def _log_axis(low: float, high: float) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 5))
    parts = (1, 2, 5) if high / low < 1e3 else (1,)
    ticks = [part * 10.0**power for power in range(first, last + 1, stride) for part in parts]
    low, high = low / 1.2, high * 1.2
    return Axis(low, high, [(tick, _short(tick)) for tick in ticks if low <= tick <= high], log=True)


def _nice(raw: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 1e-300 else 1e-300
    for factor in (1, 2, 2.5, 5, 10):
        if factor * power >= raw * (1 - 1e-9) and (factor != 2.5 or power != 1):
            return factor * power
    return 10 * power


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, min(last, first + 12) + 1)]


def _label(value: float, step: float) -> str:
    """All labels of an axis with the same decimals."""
    if value == 0:
        return "0"
    if step < 1e-4 or abs(value) >= 1e7:
        return _short(value)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    decimals += step * 10**decimals % 1 > 1e-6  # 2.5 needs one more
    return f"{value:,.{decimals}f}"


def _short(value: float) -> str:
    if 1e-3 <= abs(value) < 1e7:
        return f"{value:,.6g}"
    mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"
