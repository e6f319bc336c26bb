"""How good a process reward model is: on single steps, and at finding the first wrong one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
    of right ones in which none is found, ``f1`` their harmonic mean; NaN where there is no such solution.
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
        alternatives: how many of the steps are PRM800K's that were not gone on from, each rated behind its own prefix.
        precision, recall, f1: of wrong steps, those that the model says are wrong; NaN where they are shares of none.
        log_loss: the mean of -log of the probability that the label has.
        categories: the accuracy by the category column.
        skipped: by reason, how many rows are left out; ``examples``: the first places of each.
    """

    accuracy: StepAccuracy
    alternatives: int
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
    """A solution whose steps are rated -1, 0 or 1, int64 (steps,), and once it is scored their probabilities.

    Args:
        counts: bool (steps,), which steps are rated here: of an alternative the last one alone, and none that a human
            wrote and nobody rated.
        is_alternative: whether it ends in a step that was not gone on from, beside the row's own solution.
    """

    place: str
    prompt: Any
    steps: list[str]
    labels: NDArray[np.int64]
    counts: NDArray[np.bool_]
    row: Mapping[str, Any]
    is_alternative: bool = False
    right: NDArray[np.float64] | None = None


def score_solutions(
    model: StepScorer, rows: Iterable[Placed], skipped: Skipped, *, format: str | None = None
) -> list[Solution]:
    """Read rated solutions and score their steps; rows that cannot be are counted.

    Args:
        rows: any format that :func:`alignite.data.convert.convert_rows` makes ``stepwise`` rows of. Of PRM800K's every
            rated step is scored behind the steps that lead to it, as in training.

    Raises:
        UsageError: the model gives another number of probabilities than steps. NumericsError: one is not finite. Both
            name the row. DataError: no row is left.
    """
    solutions = []
    for place, row in rows:
        try:
            chains = _chains(row)
            made, _ = convert_rows([chain for chain, _ in chains], "stepwise", format=format)
        except (DataError, UsageError) as error:
            skipped.add(place, error)
            continue
        for number, (new, (_, unrated)) in enumerate(zip(made, chains, strict=True)):
            labels = np.array(new["labels"], dtype=np.int64)
            counts = np.arange(len(labels)) == len(labels) - 1 if number else np.ones(len(labels), dtype=bool)
            counts[unrated] = False
            prompt = new.get("prompt", "")
            solutions.append(Solution(place, prompt, new["completions"], labels, counts, row, number > 0))
    found: list[Solution] = []
    for part in parts(solutions, lambda one: 1):
        scored = halved(part, lambda some: _score(model, some), lambda one, error: skipped.add(one.place, error))
        for one, right in zip(part, scored, strict=True):
            if right is not None:
                found.append(replace(one, right=right))
    if not found:
        raise DataError("no row is a solution that can be scored", why=str(skipped) or None, fix="give rated steps")
    return found


def _chains(row: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[int]]]:
    """A row as rows without alternatives, its own solution first, and which of their steps are not rated.

    A PRM800K row is as many of them as it has rated steps that nothing rated follows. Rows of other formats, and those
    that cannot be read, stay as they are: reading them says what is wrong.
    """
    label = row.get("label")
    whole: list[tuple[dict[str, Any], list[int]]] = [(dict(row), [])]
    if "question" not in row or not isinstance(label, Mapping):
        return whole
    before: list[dict[str, Any]] = []
    unrated: list[int] = []
    ends: list[tuple[int, bool, int, dict[str, Any], list[int]]] = []
    try:
        for step in label["steps"]:
            given, chosen = step.get("completions") or [], step.get("chosen_completion")
            if chosen is not None and (type(chosen) is not int or not 0 <= chosen < len(given)):
                return whole
            led = given[chosen] if chosen is not None else step.get("human_completion")
            led = {"text": led} if isinstance(led, str) else led
            beside = [one for number, one in enumerate(given) if number != chosen]
            found = []
            for leads, one in [(True, led), *((False, one) for one in beside)]:
                if isinstance(one, Mapping) and one.get("rating") is not None:
                    only = {"completions": [one], "chosen_completion": 0}
                    steps = {"label": {**label, "steps": [*before, only]}}
                    found.append((len(before), leads, one["rating"], {**row, **steps}, list(unrated)))
            if found:
                # What leads here is no end of its own any more.
                ends = [one for one in ends if not one[1]] + found
            if led is None or led.get("rating") == -1:
                break
            if led.get("rating") is None:
                unrated.append(len(before))
                led = {**led, "rating": 1}  # no row may leave it open; it is not counted
            before.append({"completions": [led], "chosen_completion": 0})
        # The longest is the row's own, of those the one that was chosen, else the best rated.
        ends.sort(key=lambda one: one[:3], reverse=True)
    except (AttributeError, KeyError, TypeError):
        return whole
    return [(made, places) for *_, made, places in ends] or whole


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
    beside = np.array([one.is_alternative for one in solutions for _ in one.labels], dtype=bool)
    categories = np.array([_category(one.row, category_column) for one in solutions for _ in one.labels], dtype=object)
    rated = np.concatenate([one.counts for one in solutions])
    if neutral == "ignore":
        rated &= labels != 0
    if not rated.any():
        raise DataError("no step is rated right or wrong", fix="give rated steps, or count neutral ones")
    good = _good(labels, neutral)
    says = right >= threshold
    hits = (says == good) & rated
    found, missed = int((~says & ~good & rated).sum()), int((says & ~good & rated).sum())
    false = int((~says & good & rated).sum())
    precision, recall = _share(found, found + false), _share(found, found + missed)
    chance = np.clip(np.where(good, right, 1 - right)[rated], 1e-12, 1.0)
    names = sorted({name for name in categories[rated].tolist() if name is not None})
    counts = skipped.counts()
    return StepReport(
        _accuracy(hits, rated),
        int((rated & beside).sum()),
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
        if one.right is None or one.is_alternative:
            continue
        truth, said = (_first(wrong & one.counts) for wrong in (~_good(one.labels, neutral), one.right < threshold))
        kind = int(truth is None)
        counts[kind] += 1
        hits[kind] += truth == said
    shares = [_share(hit, count) for hit, count in zip(hits, counts, strict=True)]
    return FirstError(counts[0], counts[1], shares[0], shares[1], _harmonic(*shares))


def _first(marks: NDArray[np.bool_]) -> int | None:
    return int(np.argmax(marks)) if marks.any() else None


def _harmonic(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else one + other  # of shares of none, NaN


def _share(some: int, of: int) -> float:
    return some / of if of else math.nan
