"""Averages, thinning and axes of the report's charts."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from alignite.evaluation.report.axes import step_axis, value_axis
from alignite.evaluation.report.charts import Chart, Curve, draw
from alignite.evaluation.report.metric_lines import Series, decimate, moving_average
from alignite.evaluation.report.wording import duration, number, option_value, size


def test_the_moving_average_is_that_of_normalized_weights() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = moving_average(values, 7)
    weights = (1 - 2 / 8) ** np.arange(50)
    for end in (1, 2, 10, 50):
        newest_first = values[:end][::-1]
        assert found[end - 1] == pytest.approx((newest_first * weights[:end]).sum() / weights[:end].sum())


def test_the_moving_average_steps_over_what_is_no_number() -> None:
    found = moving_average(np.array([math.nan, 1.0, math.nan, 1.0, math.inf]), 5)
    assert np.isnan(found).tolist() == [True, False, True, False, True]
    assert found[[1, 3]].tolist() == [1.0, 1.0]


def test_thinning_keeps_extremes_ends_and_gaps() -> None:
    values = np.sin(np.arange(50_000) / 700)
    values[12_345], values[33_333], values[40_000] = 50.0, -50.0, math.nan
    series = Series(np.arange(50_000, dtype=float), values)
    found = decimate(series, 1000)
    assert len(found.steps) <= 1100
    assert np.all(np.diff(found.steps) > 0)
    assert {0, 12_345, 33_333, 40_000, 49_999} <= set(found.steps.astype(int).tolist())
    assert found.values.tolist()[:1] == [values[0]]
    short = Series(series.steps[:10], series.values[:10])
    assert decimate(short, 1000) is short


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 2e-4], ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        ([0.8, 3.3], ["1.0", "1.5", "2.0", "2.5", "3.0"]),
        ([1990.0, 2110.0], ["2,000", "2,025", "2,050", "2,075", "2,100"]),
        ([5.0, 5.0], ["4.6", "4.8", "5.0", "5.2", "5.4"]),
        ([-2.0, 1.0], ["-2", "-1", "0", "1"]),
        ([0.0, 0.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_ticks_are_round_and_alike(values: list[float], labels: list[str]) -> None:
    axis = value_axis(np.array(values))
    assert [label for _, label in axis.ticks] == labels
    assert all(axis.low <= value <= axis.high for value, _ in axis.ticks)


def test_a_log_scale_only_where_values_span_two_orders() -> None:
    wide, narrow = np.array([0.01, 3.0, 250.0]), np.array([0.5, 3.0])
    axis = value_axis(wide, log=True)
    assert axis.log
    assert [label for _, label in axis.ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert axis.at(1.0) == pytest.approx(math.log(1 / axis.low) / math.log(axis.high / axis.low))
    assert not value_axis(narrow, log=True).log
    assert not value_axis(wide).log
    assert not value_axis(np.array([-1.0, 1000.0]), log=True).log


@pytest.mark.parametrize("values", [[1e-300, 1e300], [-1e300, 1e300], [5e-324, 1.0], [1e15, 1e15 + 1]])
def test_values_that_went_astray_have_an_axis(values: list[float]) -> None:
    for log in (False, True):
        axis = value_axis(np.array(values), log=log)
        places = axis.place(np.array(values))
        assert np.isfinite(places).all()
        assert len(axis.ticks) <= 13


def test_lines_and_points_lie_where_the_ticks_say() -> None:
    steps, values = np.array([10.0, 20.0, 35.0, 50.0]), np.array([3.0, 1.25, 2.5, 0.5])
    series = Series(steps, values)
    html = draw(Chart("Loss", "", [Curve("training", series), Curve("held-out", series, 1, points=True)]))
    ticks = re.findall(r'<text class="tick (x|y)" x="(.*?)%?" y="(.*?)%".*?>(.*?)</text>', html)
    across = [(float(x), float(label)) for axis, x, _, label in ticks if axis == "x"]
    down = [(float(y), float(label)) for axis, _, y, label in ticks if axis == "y"]
    assert len(across) > 2
    assert len(down) > 2

    def measured(marks: list[tuple[float, float]], place: float) -> float:
        (first, low), (last, high) = marks[0], marks[-1]
        return low + (place - first) / (last - first) * (high - low)

    path = re.findall(r'<path d="([^"]*)" class="line c0">', html)[0]
    drawn = [(float(x) / 40, float(y) / 10) for x, y in re.findall(r"[ML](\d+) (\d+)", path)]
    circles = re.findall(r'class="point c1" cx="(.*?)%" cy="(.*?)%"', html)
    for places in (drawn, [(float(x), float(y)) for x, y in circles]):
        assert [measured(across, x) for x, _ in places] == pytest.approx(steps.tolist(), abs=0.02)
        assert [measured(down, y) for _, y in places] == pytest.approx(values.tolist(), abs=0.004)


def test_updates_have_whole_ticks() -> None:
    assert [label for _, label in step_axis(3).ticks] == ["0", "1", "2", "3"]
    assert [label for _, label in step_axis(12).ticks] == ["0", "5", "10"]
    assert [label for _, label in step_axis(20_000).ticks] == ["0", "5,000", "10,000", "15,000", "20,000"]


def test_numbers_in_words() -> None:
    found = [number(value) for value in (0, 0.0, 7, 12345, 1.40691, 0.043, 2e-5, 2.5e-5, 1234.5, -3.2, math.nan, None)]
    assert found == ["0", "0", "7", "12,345", "1.407", "0.04300", "2e-5", "2.5e-5", "1,234", "-3.200", "–", "–"]
    assert [duration(value) for value in (3.21, 65, 3700)] == ["3.2 s", "1 min 05 s", "1 h 01 min"]
    assert [size(value) for value in (0, 999, 1000, 3_400_000, None)] == ["0 B", "999 B", "1 kB", "3.4 MB", "–"]
    assert [option_value(value) for value in (None, True, ["a", "b"], [], 2e-5)] == [
        "none",
        "true",
        "a b",
        "none",
        "2e-05",
    ]
