"""How good a process reward model is: on single steps, and at finding the first wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.data.convert import convert_rows
from alignite.errors import AligniteError, DataError, NumericsError, UsageError
from alignite.evaluation.candidates import Placed, Skipped, halved, number_rows, parts
from alignite.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

StepScorer = Callable[[Sequence[Any], Sequence[Sequence[str]]], Sequence[Any]]
"""Probabilities that steps are right, a list a solution: :meth:`ProcessRewardModel.step_scores`."""


@dataclass(frozen=True)
class StepAccuracy:
    """How many steps are rated right; ``low`` and ``high`` are Wilson's 95 % interval."""

    steps: int
    right: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class FirstError:
    """Finding the first wrong step of a solution, or that there is none (ProcessBench, arXiv 2412.06559, section 3).

    ``accuracy_wrong`` is the share of wrong solutions whose first wrong step is found exactly, ``accuracy_right`` that
    of right ones in which none is found, ``f1`` their harmonic mean; 0 where there is no such solution.
    """

    wrong: int
    right: int
    accuracy_wrong: float
    accuracy_right: float
    f1: float


@dataclass(frozen=True)
class StepReport:
    """What :func:`evaluate_steps` found.

    Args:
        precision, recall, f1: of wrong steps, those that the model says are wrong; 0 where there is none.
        log_loss: the mean of -log of the probability that the label has.
        categories: the accuracy by the category column.
        skipped: by reason, how many rows are left out; ``examples``: the first places of each.
    """

    accuracy: StepAccuracy
    precision: float
    recall: float
    f1: float
    log_loss: float
    first_error: FirstError
    categories: dict[str, StepAccuracy]
    skipped: dict[str, int]
    examples: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Solution:
    """A solution whose steps are rated -1, 0 or 1, int64 (steps,), and once it is scored their probabilities."""

    place: str
    prompt: Any
    steps: list[str]
    labels: NDArray[np.int64]
    row: Mapping[str, Any]
    right: NDArray[np.float64] | None = None


def score_solutions(
    model: StepScorer, rows: Iterable[Placed], skipped: Skipped, *, format: str | None = None
) -> list[Solution]:
    """Read rated solutions and score their steps; rows that cannot be are counted.

    Args:
        rows: any format that :func:`alignite.data.convert.convert_rows` makes ``stepwise`` rows of.

    Raises:
        UsageError: the model gives another number of probabilities than steps. NumericsError: one is not finite. Both
            name the row. DataError: no row is left.
    """
    solutions = []
    for place, row in rows:
        try:
            made, _ = convert_rows([dict(row)], "stepwise", format=format)
        except (DataError, UsageError) as error:
            skipped.add(place, error)
            continue
        for new in made:
            labels = np.array(new["labels"], dtype=np.int64)
            solutions.append(Solution(place, new.get("prompt", ""), new["completions"], labels, row))
    found: list[Solution] = []
    for part in parts(solutions, lambda one: 1):
        scored = halved(part, lambda some: _score(model, some), lambda one, error: skipped.add(one.place, error))
        for one, right in zip(part, scored, strict=True):
            if right is not None:
                found.append(Solution(one.place, one.prompt, one.steps, one.labels, one.row, right))
    if not found:
        raise DataError("no row is a solution that can be scored", why=str(skipped) or None, fix="give rated steps")
    return found


def _score(model: StepScorer, solutions: Sequence[Solution]) -> list[NDArray[np.float64]]:
    try:
        given = list(model([one.prompt for one in solutions], [one.steps for one in solutions]))
    except AligniteError as error:
        numbers = [number for number in range(len(solutions)) if error.where == f"solution {number}"]
        error.where = solutions[numbers[0]].place if numbers else error.where
        raise
    found = [np.asarray(values, dtype=np.float64) for values in given]
    if len(found) != len(solutions):
        raise UsageError(f"the model scores {len(found)} solutions, not {len(solutions)}", fix="score each of them")
    for one, values in zip(solutions, found, strict=True):
        if values.shape != (len(one.steps),):
            raise UsageError(
                f"the model gives probabilities of shape {values.shape} for {len(one.steps)} steps",
                where=one.place,
                fix="give one a step",
            )
        if not np.isfinite(values).all():
            raise NumericsError("the probability of a step is not finite", where=one.place, fix="check the model")
    return found


def evaluate_steps(
    model: StepScorer,
    rows: Iterable[Mapping[str, Any]],
    *,
    neutral: str = "good",
    threshold: float = 0.5,
    category_column: str | None = "category",
) -> StepReport:
    """Score held-out rated solutions and report on them.

    Args:
        model: such as the ``step_scores`` of a process reward model.
        rows: stepwise rows, or PRM800K's.
        neutral: whether a step rated 0 counts as right (``good``), as wrong (``bad``), or is left out (``ignore``).
        threshold: the probability from which a step is said to be right.
        category_column: accuracy is reported for each of its values too.

    Raises:
        DataError, UsageError, NumericsError: as :func:`score_solutions`.
    """
    skipped = Skipped()
    solutions = score_solutions(model, number_rows(rows), skipped)
    return report_on_steps(solutions, skipped, neutral=neutral, threshold=threshold, category_column=category_column)


def report_on_steps(
    solutions: Sequence[Solution],
    skipped: Skipped,
    *,
    neutral: str = "good",
    threshold: float = 0.5,
    category_column: str | None = "category",
) -> StepReport:
    """The report of :func:`evaluate_steps` on solutions that are scored.

    Raises:
        UsageError: ``neutral`` is something else. DataError: no step is rated.
    """
    if neutral not in ("good", "bad", "ignore"):
        raise UsageError(f"neutral is {neutral!r}", fix="it is good, bad or ignore")
    labels = np.concatenate([one.labels for one in solutions])
    right = np.concatenate([one.right for one in solutions if one.right is not None])
    categories = np.array([_category(one.row, category_column) for one in solutions for _ in one.labels], dtype=object)
    rated = labels != 0 if neutral == "ignore" else np.ones(len(labels), dtype=bool)
    if not rated.any():
        raise DataError("no step is rated right or wrong", fix="give rated steps, or count neutral ones")
    good = _good(labels, neutral)
    says = right >= threshold
    hits = (says == good) & rated
    found, missed = int((~says & ~good & rated).sum()), int((says & ~good & rated).sum())
    false = int((~says & good & rated).sum())
    precision = found / (found + false) if found + false else 0.0
    recall = found / (found + missed) if found + missed else 0.0
    chance = np.clip(np.where(good, right, 1 - right)[rated], 1e-12, 1.0)
    names = sorted({name for name in categories[rated].tolist() if name is not None})
    counts = skipped.counts()
    return StepReport(
        _accuracy(hits, rated),
        precision,
        recall,
        _harmonic(precision, recall),
        float(-np.log(chance).mean()),
        _first_error(solutions, neutral, threshold),
        {name: _accuracy(hits, rated & (categories == name)) for name in names},
        {reason: count.count for reason, count in counts.items()},
        {reason: count.examples for reason, count in counts.items()},
    )


def _good(labels: NDArray[np.int64], neutral: str) -> NDArray[np.bool_]:
    """Whether steps count as right; of ``ignore`` a neutral one is at least no error."""
    return labels > 0 if neutral == "bad" else labels >= 0


def _category(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    return None if value is None else str(value)


def _accuracy(hits: NDArray[np.bool_], of: NDArray[np.bool_]) -> StepAccuracy:
    steps, right = int(of.sum()), int((hits & of).sum())
    return StepAccuracy(steps, right, right / steps, *wilson_interval(right, steps))


def _first_error(solutions: Sequence[Solution], neutral: str, threshold: float) -> FirstError:
    counts, hits = [0, 0], [0, 0]
    for one in solutions:
        if one.right is None:
            continue
        truth, said = _first(~_good(one.labels, neutral)), _first(one.right < threshold)
        kind = int(truth is None)
        counts[kind] += 1
        hits[kind] += truth == said
    shares = [hit / count if count else 0.0 for hit, count in zip(hits, counts, strict=True)]
    return FirstError(counts[0], counts[1], shares[0], shares[1], _harmonic(*shares))


def _first(marks: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(marks)) if marks.any() else None


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
