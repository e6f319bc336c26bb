"""``alignite evaluate``"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.cli.options import check_data, escaped, parse, stderr
from alignite.cli.score_folders import with_run_criteria
from alignite.cli.scorers import Panel, check_models, open_panel
from alignite.config import EvaluateConfig
from alignite.errors import DataError, ResourceError, UsageError

if TYPE_CHECKING:
    from alignite.evaluation.candidates import Candidates, Placed, Skipped
    from alignite.evaluation.reward import Accuracy, RewardReport, ScoredSet
    from alignite.evaluation.steps import StepAccuracy, StepReport


def run(argv: Sequence[str]) -> int:
    """Say how good reward models are on held-out pairs and rankings, or a process reward model on rated steps."""
    config, as_json = parse(
        EvaluateConfig, "alignite evaluate", "Evaluate reward models on pairs, rankings or rated steps.", argv
    )
    config = with_run_criteria(config)
    config.validate()
    if not config.data:
        raise UsageError("no data is given", fix="add --data FILE")
    check_models(config)
    check_data(config.data)
    if config.output is not None and Path(config.output).exists():
        raise ResourceError("the output file is there already", where=config.output, fix="name a new file")

    from alignite.data.files import find_files
    from alignite.evaluation.candidates import Skipped, read_rows

    skipped = Skipped()
    counted = skipped if config.on_bad_row == "skip" else None
    rows = list(read_rows(find_files(config.data), config.column_names(), counted))
    if not rows:
        raise DataError("there is no row", where=" ".join(config.data), why=str(skipped) or None, fix="give rows")
    column = config.category_column
    if column != "category" and not any(column in row for _, row in rows):
        raise DataError(
            f"no row has the column {column!r}",
            where=" ".join(config.data),
            why=f"category_column names it; the first row has {', '.join(rows[0][1]) or 'no column'}",
            fix="name a column of the rows",
        )
    panel = open_panel(config)
    if _are_steps(rows, config.format) and len(panel.models) == 1 and hasattr(panel.models[0], "step_scores"):
        result, lines, scores = _steps(panel, rows, skipped, config)
    else:
        result, lines, scores = _pairs(panel, rows, skipped, config)
    if config.on_bad_row == "error" and result["skipped"]:
        reason, places = next(iter(result["examples"].items()))
        raise DataError(reason, where=places[0], fix="mend the row, or set on_bad_row to skip")
    if config.output is not None:
        from alignite.files import write_file

        write_file(Path(config.output), "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in scores))
    if as_json:
        print(json.dumps(_finite(result)))
        return 0
    for reason, places in result["examples"].items():
        many = "" if result["skipped"][reason] == 1 else "s"
        lines.append(f"{result['skipped'][reason]:,} row{many} left out: {reason} (first: {', '.join(places)})")
    print(escaped("\n".join(lines)))
    if config.output is not None:
        stderr(f"wrote {config.output}")
    return 0


def _are_steps(rows: Sequence[Placed], format: str | None) -> bool:
    if format is not None:
        return format in ("stepwise", "prm800k")
    # Most rows say it: the first may be a bad one.
    return 2 * sum(_is_solution(row) for _, row in rows) > len(rows)


def _is_solution(row: Mapping[str, Any]) -> bool:
    is_prm800k = "question" in row and isinstance(row.get("label"), dict)
    return is_prm800k or {"labels", "completions"} <= row.keys()


Outcome = tuple[dict[str, Any], list[str], list[dict[str, Any]]]
"""The result as JSON, lines for people, and every row's scores."""


def _pairs(panel: Panel, rows: Iterable[Placed], skipped: Skipped, config: EvaluateConfig) -> Outcome:
    import numpy as np

    from alignite.evaluation.reward import ensemble_disagreement, report_on, score_rows

    scored = score_rows(panel, _checked(panel, rows, skipped, config), format=config.format, skipped=skipped)
    about = None
    if config.safety_column is not None:
        about = np.array([one.row[config.safety_column] for one in scored.candidates for _ in one.replies], dtype=bool)
    combined = scored.with_column(panel.combine(scored.columns().T, about))
    by_criterion = 0
    for number, one in enumerate(scored.candidates):
        about_one = panel.criterion_of(one.row)
        if about_one is not None:
            combined.scores[number] = panel.combine_row(scored.scores[number], about_one)[:, None]
            by_criterion += 1
    how: dict[str, Any] = {"category_column": config.category_column, "num_bins": config.num_bins}
    names = panel.columns
    report = report_on(combined, **how)
    result = report.to_dict()
    lines = []
    if len(names) > 1:
        each = {}
        for column, (name, head) in enumerate(zip(names, panel.heads, strict=True)):
            concerned = scored if head is None else scored.only(_about(panel, head))
            if any(len(one.pairs()) for one in concerned.candidates):  # else no row is about this head
                each[name] = report_on(concerned, head=column, **how)
        first, second = (np.concatenate([one[kind] for one in _by_pairs(scored)]).T for kind in (0, 1))
        agreement = ensemble_disagreement(np.stack([first, second], axis=1))
        result |= {"combine": config.combine, "models": {name: one.to_dict() for name, one in each.items()}}
        result["by_criterion"] = by_criterion
        how_combined = f"combined ({config.combine})"
        if by_criterion:
            others = f", others by the {config.combine}" if by_criterion < len(scored.candidates) else ""
            how_combined = f"each row by its criterion's head{others}"
        result["agreement"] = agreement
        lines += _table(
            ["model", "accuracy", "95 %", "ties", "ECE", "log loss", "length r"],
            [_row(name, one) for name, one in [*each.items(), (how_combined, report)]],
        )
        lines += ["", f"of pairs of models {agreement['disagreement']:.1%} order a pair differently", ""]
    else:
        result["model"] = names[0]
    lines += _report_lines(report)
    out: list[dict[str, Any]] = []
    for one, found, total in zip(scored.candidates, scored.scores, combined.scores, strict=True):
        said: dict[str, Any] = {"row": one.place, "values": one.values.tolist(), "scores": total[:, 0].tolist()}
        if len(names) > 1:
            said["model_scores"] = dict(zip(names, found.T.tolist(), strict=True))
        out.append(said)
    return result, lines, out


def _about(panel: Panel, head: int) -> Callable[[Candidates], bool]:
    """Whether a row is about what a head judges, or about nothing in particular."""
    return lambda one: panel.criterion_of(one.row) in (None, head)


def _checked(panel: Panel, rows: Iterable[Placed], skipped: Skipped, config: EvaluateConfig) -> Iterable[Placed]:
    """Rows whose columns can be read, graded where that is asked for, and not another head's; others are counted."""
    from alignite.evaluation.math_answers import graded_row

    chosen = panel.chosen_head
    for place, row in rows:
        try:
            about = panel.criterion_of(row)
            if None not in (about, chosen) and about != chosen:
                raise DataError("the row is about another criterion than the head")
            if config.safety_column is not None:
                panel.safety_of(row, config.safety_column)
            graded = row if config.answer_column is None else graded_row(row, config.answer_column)
        except DataError as error:
            skipped.add(place, error)
            continue
        yield place, graded


def _by_pairs(scored: ScoredSet) -> list[Any]:
    """Of each row the scores of its pairs' better and worse replies, (2, pairs, columns)."""
    zipped = zip(scored.candidates, scored.scores, strict=True)
    return [found[one.pairs().T] for one, found in zipped if len(one.pairs())]


def _steps(panel: Panel, rows: Iterable[Placed], skipped: Skipped, config: EvaluateConfig) -> Outcome:
    from alignite.evaluation.steps import report_on_steps, score_solutions

    model: Any = panel.models[0]
    solutions = score_solutions(model.step_scores, rows, skipped, format=config.format)
    report = report_on_steps(
        solutions,
        skipped,
        neutral="good" if config.neutral_is_good else "bad",
        threshold=config.step_threshold,
        category_column=config.category_column,
    )
    out: list[dict[str, Any]] = []
    for one in solutions:
        rated = zip(one.labels.tolist(), one.counts.tolist(), strict=True)
        labels = [label if counts else None for label, counts in rated]  # a step counts in one line
        out.append({"row": one.place, "labels": labels, "scores": [] if one.right is None else one.right.tolist()})
        if one.is_alternative:
            out[-1]["steps"] = one.steps
    return {"model": panel.names[0], **report.to_dict()}, _step_lines(report), out


def _report_lines(report: RewardReport) -> list[str]:
    found = report.accuracy
    lines = [
        f"pairs        {found.pairs:,}, of which {found.ties:,} have equal scores",
        f"accuracy     {found.accuracy:.1%}, 95 % interval {found.low:.1%} to {found.high:.1%}",
        f"calibration  ECE {report.calibration.ece:.3f}, log loss {report.calibration.log_loss:.3f}",
        f"length       r {_shown(report.length.pearson)}, rank r {_shown(report.length.spearman)}, "
        f"within pairs {_shown(report.length.within_pairs)}",
    ]
    if report.categories:
        rows = [[name, f"{one.pairs:,}", *_share(one)] for name, one in report.categories.items()]
        lines += ["", *_table(["category", "pairs", "accuracy", "95 %"], rows)]
    if report.best_of_n:
        curve = [[str(n), f"{value:.4g}", f"{report.best_possible[n]:.4g}"] for n, value in report.best_of_n.items()]
        lines += ["", *_table(["best of", "value", "best possible"], curve)]
    if report.no_pair:
        lines += ["", f"{report.no_pair:,} row{' is a tie' if report.no_pair == 1 else 's are ties'}"]
    return lines


def _shown(value: float, form: str = ".2f") -> str:
    """A number; a dash for a correlation with what does not vary, or a share of nothing."""
    return "-" if math.isnan(value) else f"{value:{form}}"


def _percent(value: float) -> str:
    return _shown(value, ".1%")


def _step_lines(report: StepReport) -> list[str]:
    found, first = report.accuracy, report.first_error
    lines = [
        f"steps        {found.steps:,}"
        + (f", {report.alternatives:,} of them alternatives" if report.alternatives else ""),
        f"accuracy     {found.accuracy:.1%}, 95 % interval {found.low:.1%} to {found.high:.1%}",
        f"wrong steps  precision {_percent(report.precision)}, recall {_percent(report.recall)}, "
        f"F1 {_percent(report.f1)}",
        f"log loss     {report.log_loss:.3f}",
        f"first error  found in {_percent(first.accuracy_wrong)} of {first.wrong:,} wrong solutions, none in "
        f"{_percent(first.accuracy_right)} of {first.right:,} right ones, F1 {_percent(first.f1)}",
    ]
    if report.categories:
        rows = [[name, f"{one.steps:,}", *_share(one)] for name, one in report.categories.items()]
        lines += ["", *_table(["category", "steps", "accuracy", "95 %"], rows)]
    return lines


def _row(name: str, report: RewardReport) -> list[str]:
    of = report.calibration
    return [
        name,
        *_share(report.accuracy),
        str(report.accuracy.ties),
        f"{of.ece:.3f}",
        f"{of.log_loss:.3f}",
        _shown(report.length.pearson),
    ]


def _share(found: Accuracy | StepAccuracy) -> list[str]:
    return [f"{found.accuracy:.1%}", f"{found.low:.1%} to {found.high:.1%}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is unknown is null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
