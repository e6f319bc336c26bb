"""Which charts a report has: one a metric, training and evaluation in the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignite.evaluation.report.charts import Chart, Curve, Mark, draw, swatch
from alignite.evaluation.report.markup import Html, tag
from alignite.evaluation.report.metric_lines import Series
from alignite.evaluation.report.run_files import Run
from alignite.evaluation.report.summary import last_step, resumes, status

_HIDDEN = {"time", "epoch", "num_tokens"}
_MOST_CHARTS = 24
_MOST_LABELS = 4


@dataclass(frozen=True)
class _Kind:
    title: str
    unit: str
    zero: bool = False
    log: bool = False
    smooth: bool = True


_KINDS = {
    "loss": _Kind("Loss", "nats per scored token", log=True),
    "learning_rate": _Kind("Learning rate", "", zero=True, smooth=False),
    "grad_norm": _Kind("Gradient norm", "before clipping", zero=True, log=True),
    "tokens_per_second": _Kind("Throughput", "tokens per second", zero=True),
    "mean_token_accuracy": _Kind("Token accuracy", "share of scored tokens that were the likeliest"),
    "entropy": _Kind("Entropy", "nats per scored token"),
}


def draw_run(run: Run) -> list[Html]:
    """The charts of one run: training in the first colour, evaluation in the second."""
    charts = []
    marks = _marks(run)
    for name in _metrics([run]):
        curves = []
        if name in run.train:
            curves.append(Curve("training", run.train[name]))
        if name in run.evaluations:
            best = int(run.best["step"]) if run.best.get("metric") == f"eval_{name}" else None
            curves.append(Curve("held-out data", run.evaluations[name], 1, points=True, best=best))
        key = _key(run, curves) if name == "loss" else []
        charts.append(_chart(name, curves, marks, key, last_step(run), _level(name, [run])))
    return charts


def draw_runs(runs: Sequence[Run], names: Mapping[int, str]) -> list[Html]:
    """The charts of several runs, a colour each; ``names`` by position."""
    charts = []
    last = max((last_step(run) or 0 for run in runs), default=0)
    for metric in _metrics(runs):
        curves = []
        for slot, run in enumerate(runs):
            if metric in run.train:
                curves.append(Curve(names[slot], run.train[metric], slot))
            if metric in run.evaluations:
                curves.append(Curve(f"{names[slot]}, held-out", run.evaluations[metric], slot, points=True))
        charts.append(_chart(metric, curves, [], [], last, _level(metric, runs)))
    return charts


def legend(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """The colours of several runs, and what points are."""
    key = [swatch("line", name, slot) for slot, name in names.items()]
    key += [swatch("point", "held-out data")] if any(run.evaluations for run in runs) else []
    return tag("p", *key, class_="key legend")


def _metrics(runs: Sequence[Run]) -> list[str]:
    """The known ones in their order, then others by name."""
    present: dict[str, Series] = {}
    for run in runs:
        present |= run.train | run.evaluations
    known = [name for name in _KINDS if name in present]
    return [*known, *sorted(present.keys() - _KINDS.keys() - _HIDDEN)][:_MOST_CHARTS]


def _chart(
    name: str,
    curves: list[Curve],
    marks: list[Mark],
    key: list[Html],
    last: int | None,
    level: tuple[float, str] | None,
) -> Html:
    kind = _KINDS.get(name, _Kind(name, ""))
    return draw(
        Chart(
            title=kind.title,
            unit=kind.unit,
            curves=curves,
            marks=marks if name == "loss" else [Mark(mark.kind, mark.step, "") for mark in marks if _is_line(mark)],
            level=level,
            zero=kind.zero,
            log=kind.log,
            smooth=kind.smooth,
            wide=name == "loss",
            last_step=last or 0,
            key=key,
        )
    )


def _is_line(mark: Mark) -> bool:
    return mark.kind != "checkpoint"


def _level(name: str, runs: Sequence[Run]) -> tuple[float, str] | None:
    """Where gradients are clipped, when all runs do it at the same norm."""
    limits = {str(run.config.get("max_grad_norm")): run.config.get("max_grad_norm") for run in runs}
    value = next(iter(limits.values())) if len(limits) == 1 else None
    if name != "grad_norm" or isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
        return None
    return float(value), f"clipped above {value:g}"


def _marks(run: Run) -> list[Mark]:
    again = resumes(run)
    marks = [Mark("resume", step, f"resumed at {step:,}" if len(again) <= _MOST_LABELS else "") for step in again]
    ended = status(run)
    if ended.tone == "bad" and run.history[-1].step is not None:
        marks.append(Mark("fail", run.history[-1].step, ended.word.lower()))
    return marks + [Mark("checkpoint", item.step, item.name) for item in run.checkpoints]


def _key(run: Run, curves: Sequence[Curve]) -> list[Html]:
    key = [swatch("point" if curve.points else "line", curve.name, curve.slot) for curve in curves]
    key += [swatch("resume", "resumed")] if resumes(run) else []
    key += [swatch("fail", "failed")] if status(run).tone == "bad" else []
    return key + ([swatch("checkpoint", "checkpoint on disk")] if run.checkpoints else [])
