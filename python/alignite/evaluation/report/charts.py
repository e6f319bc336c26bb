"""Curves over updates as SVG that fits any width, in the colours of page.css.

Lines are drawn in a square of 4000 x 1000 that the browser stretches to the place there is; text, points and marks
are placed by percentages, so they keep their size. Nothing needs a script; page.js adds a reading line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alignite.evaluation.report.axes import Axis, step_axis, value_axis
from alignite.evaluation.report.markup import Html, join, script_json, tag
from alignite.evaluation.report.metric_lines import Series, decimate, moving_average
from alignite.evaluation.report.wording import number

SLOTS = 6
_WIDTH, _HEIGHT = 4000, 1000
_SMOOTH_FROM = 30
_LARGEST = 1e300


@dataclass(frozen=True)
class Curve:
    """A series in a chart.

    Args:
        slot: which colour; from ``SLOTS`` on they come again, dashed.
        points: few values that stand for themselves, such as evaluations: drawn as points.
        best: the step of the point that stands out.
    """

    name: str
    series: Series
    slot: int = 0
    points: bool = False
    best: int | None = None


@dataclass(frozen=True)
class Mark:
    """Something that happened after an update: ``kind`` is resume, fail or checkpoint."""

    kind: str
    step: int
    text: str


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Args:
        unit: of its values, shown beside the title.
        level: a horizontal line, as (value, what it is).
        zero, log: see :func:`value_axis`.
        smooth: whether long curves get a moving average.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    marks: Sequence[Mark] = ()
    level: tuple[float, str] | None = None
    zero: bool = False
    log: bool = False
    smooth: bool = True
    wide: bool = False
    last_step: int = 0
    key: list[Html] = field(default_factory=list)


def smoothing_span(curves: Sequence[Curve]) -> int:
    """Logged values in the moving average of a chart's curves; 0 when they are short enough to be read as they are."""
    longest = max((len(curve.series.values) for curve in curves if not curve.points), default=0)
    return 0 if longest < _SMOOTH_FROM else min(max(5, round(longest / 50)), 200)


def draw(chart: Chart) -> Html:
    """A figure: title, unit, key, plot, and its values for the reading line."""
    curves = [_drawable(curve) for curve in chart.curves]
    values = [curve.series.finite.values for curve in curves]
    if not sum(len(part) for part in values):
        message = tag("p", "No finite value was logged.", class_="empty")
        return tag("figure", _caption(chart, Axis(0, 1, []), 0), message, class_="chart")
    every = np.concatenate(values)
    level = chart.level if chart.level is not None and every.max() >= chart.level[0] / 3 else None
    chart = replace(chart, level=level)  # a level far above all values would flatten them
    y = value_axis(np.append(every, [level[0]] if level is not None else []), zero=chart.zero, log=chart.log)
    x = step_axis(max([float(chart.last_step), *(float(curve.series.steps[-1]) for curve in curves)]))
    span = smoothing_span(chart.curves) if chart.smooth else 0
    plot = tag(
        "svg",
        _grid(x, y),
        _level(level[0], y) if level is not None else "",
        *(_mark(mark, x) for mark in chart.marks),
        tag(
            "svg",
            *(_lines(curve, x, y, span, len(curves)) for curve in curves),
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            preserveAspectRatio="none",
            width="100%",
            height="100%",
        ),
        *(_points(curve, x, y) for curve in curves if curve.points),
        tag("line", class_="cross", y1="0", y2="100%", x1="-9", x2="-9"),
        role="img",
        aria_label=_spoken(chart, curves),
    )
    data = {"max": x.high, "curves": [_data(curve) for curve in curves]}
    return tag(
        "figure",
        _caption(chart, y, span),
        tag("div", plot, class_="plot", tabindex="0"),
        tag("script", script_json(data), type="application/json"),
        class_="chart wide" if chart.wide else "chart",
    )


def _drawable(curve: Curve) -> Curve:
    clipped = Series(curve.series.steps, np.clip(curve.series.values, -_LARGEST, _LARGEST))
    return Curve(curve.name, clipped, curve.slot, curve.points, curve.best)


def _caption(chart: Chart, y: Axis, span: int) -> Html:
    words = [chart.unit] if chart.unit else []
    words += ["log scale"] if y.log else []
    words += [f"strong: average over {span} values"] if span else []
    words += [f"dotted: {chart.level[1]}"] if chart.level is not None else []
    key = tag("span", *chart.key, class_="key") if chart.key else ""
    return tag("figcaption", tag("b", chart.title), tag("span", "; ".join(words), class_="unit"), key)


def _spoken(chart: Chart, curves: Sequence[Curve]) -> str:
    said = []
    for curve in curves:
        finite = curve.series.finite
        if len(finite.values):
            first, last = (f"{number(float(finite.values[i]))} at update {int(finite.steps[i]):,}" for i in (0, -1))
            said.append(f"{curve.name}: from {first} to {last}")
    return f"{chart.title}. " + "; ".join(said)


def _percent(part: float) -> str:
    return f"{100 * part:.3f}".rstrip("0").rstrip(".") + "%"


def _grid(x: Axis, y: Axis) -> Html:
    made = []
    for value, label in y.ticks:
        place = _percent(1 - y.at(value))
        made.append(tag("line", class_="grid", x1="0", x2="100%", y1=place, y2=place))
        made.append(tag("text", label, class_="tick y", x="-8", y=place, dy="0.32em"))
    for value, label in x.ticks:
        place = _percent(x.at(value))
        made.append(tag("text", label, class_="tick x", x=place, y="100%", dy="1.8em"))
    made.append(tag("line", class_="axis", x1="0", x2="100%", y1="100%", y2="100%"))
    made.append(tag("text", "updates", class_="tick name", x="100%", y="100%", dy="3.1em"))
    return join(made)


def _level(value: float, y: Axis) -> Html:
    place = _percent(1 - y.at(value))
    return tag("line", class_="level", x1="0", x2="100%", y1=place, y2=place)


def _mark(mark: Mark, x: Axis) -> Html:
    share = x.at(mark.step)
    place = _percent(share)
    if mark.kind == "checkpoint":
        shape = tag("path", tag("title", mark.text), d="M0 1l4 6.5h-8z", class_="checkpoint")
        return tag("svg", shape, x=place, y="100%", overflow="visible", width="1", height="1")
    line = tag("line", tag("title", mark.text), class_=mark.kind, x1=place, x2=place, y1="0", y2="100%")
    side = "near" if share < 0.15 else "far" if share > 0.85 else "mid"
    return join([line, tag("text", mark.text, class_=f"note {side}", x=place, y="0", dy="-0.5em")])


def _colour(curve: Curve) -> str:
    return f"c{curve.slot % SLOTS}" + (f" dash{curve.slot // SLOTS}" if curve.slot >= SLOTS else "")


def _lines(curve: Curve, x: Axis, y: Axis, span: int, count: int) -> Html:
    colour = _colour(curve)
    raw = decimate(curve.series)
    if curve.points:
        return tag("path", d=_path(raw, x, y), class_=f"line thin {colour}")
    if not span:
        return tag("path", d=_path(raw, x, y), class_=f"line {colour}")
    average = decimate(Series(curve.series.steps, moving_average(curve.series.values, span)))
    # More than a few faint lines on top of each other hide the strong ones.
    faint = tag("path", d=_path(raw, x, y), class_=f"line faint {colour}") if count <= 6 else ""
    return join([faint, tag("path", d=_path(average, x, y), class_=f"line strong {colour}")])


def _path(series: Series, x: Axis, y: Axis) -> str:
    """An SVG path with gaps where there is no number; a lone value becomes a dot."""
    across = np.rint(x.place(series.steps) * _WIDTH).astype(int).tolist()
    finite = np.isfinite(series.values)
    up = y.place(np.where(finite, series.values, y.low))
    down = np.rint((1 - up) * _HEIGHT).astype(int).tolist()
    parts: list[str] = []
    pen = False
    for index, (left, top, there) in enumerate(zip(across, down, finite.tolist(), strict=True)):
        if there:
            parts.append(f"{'L' if pen else 'M'}{left} {top}")
            alone = not pen and (index + 1 == len(across) or not finite[index + 1])
            parts += ["h0"] if alone else []
        pen = there
    return "".join(parts)


def _points(curve: Curve, x: Axis, y: Axis) -> Html:
    shown = decimate(curve.series, 200).finite
    made = []
    radius = "4" if len(shown.steps) <= 25 else "2.75"
    for step, value in zip(shown.steps.tolist(), shown.values.tolist(), strict=True):
        is_best = step == curve.best
        words = f"{curve.name} {number(value)} at update {int(step):,}" + (", the best" if is_best else "")
        place = {"cx": _percent(x.at(step)), "cy": _percent(1 - y.at(value))}
        if is_best:
            made.append(tag("circle", r="8", class_=f"ring {_colour(curve)}", **place))
        made.append(tag("circle", tag("title", words), r=radius, class_=f"point {_colour(curve)}", **place))
    return join(made)


def _data(curve: Curve) -> dict[str, object]:
    shown = decimate(curve.series).finite
    return {
        "name": curve.name,
        "colour": f"c{curve.slot % SLOTS}",
        "steps": [int(step) for step in shown.steps],
        "values": [float(f"{value:.4g}") for value in shown.values],
    }


def swatch(kind: str, words: str, slot: int = 0) -> Html:
    """An entry of a key; ``kind`` is line, point, resume, fail or checkpoint."""
    colour = _colour(Curve("", Series(np.zeros(0), np.zeros(0)), slot))
    shapes = {
        "line": tag("path", d="M0 6h20", class_=f"line strong {colour}"),
        "point": tag("circle", cx="10", cy="6", r="4", class_=f"point {colour}"),
        "checkpoint": tag("path", d="M10 2l4 6.5h-8z", class_="checkpoint"),
    }
    shape = shapes.get(kind) or tag("path", d="M10 0v12", class_=kind)
    return tag("span", tag("svg", shape, width="20", height="12", aria_hidden="true"), words)
