"""Scores from questionnaires, and preferences on a scale of five."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignite.data.survey import Count
from alignite.errors import DataError, UsageError
from alignite.feedback.rows import BadRows, OnBadRow, need, preference_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIVE_LEVELS: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)
"""p of "first much better", "better", "equal", "worse", "much worse"."""
HARD_LEVELS: tuple[float, ...] = (1.0, 1.0, 0.5, 0.0, 0.0)
"""The same as WebGPT (arXiv 2112.09332) uses them: only ties are soft."""


@dataclass(frozen=True)
class Question:
    """A question about one reply, with options that say how well it does.

    Args:
        id: its name in rows. ``text``: what raters read.
        options: by option, its value; higher is better.
        criterion: what it tells about, such as ``helpful``.
        weight: how much it counts among its criterion's questions.
    """

    id: str
    text: str
    options: Mapping[str, float]
    criterion: str
    weight: float = 1.0


class Questionnaire:
    """Questions about replies.

    Args:
        questions: in the order in which they are asked.
        criteria: by criterion, its weight in the total; 1 each by default.

    Raises:
        UsageError: ids repeat, a question has fewer than two options, a weight is not positive, a value is not finite,
            or there are weights of criteria that no question asks about.
    """

    def __init__(self, questions: Sequence[Question], criteria: Mapping[str, float] | None = None) -> None:
        if not questions or len({question.id for question in questions}) < len(questions):
            raise UsageError("a questionnaire needs questions, each with an id of its own")
        for question in questions:
            if (
                len(question.options) < 2
                or not question.weight > 0
                or not np.isfinite([*question.options.values()]).all()
            ):
                raise UsageError(
                    "the question cannot be scored",
                    where=question.id,
                    fix="give two or more options with finite values, and a positive weight",
                )
        self.questions = tuple(questions)
        self.criteria = tuple(dict.fromkeys(question.criterion for question in questions))
        weights = dict.fromkeys(self.criteria, 1.0) if criteria is None else dict(criteria)
        if set(weights) != set(self.criteria) or not all(weight > 0 for weight in weights.values()):
            raise UsageError(
                f"the criteria's weights are for {', '.join(weights)}",
                fix=f"give a positive weight for each of {', '.join(self.criteria)}",
            )
        self.weights = np.array([weights[name] for name in self.criteria])

    def scores(
        self, answers: Sequence[Mapping[str, str]], *, missing: Literal["error", "ignore"] = "error"
    ) -> NDArray[np.float64]:
        """The weighted mean of the chosen options' values: float64 (replies, criteria), NaN where nothing was answered.

        Args:
            answers: of each reply, the option chosen by question id.
            missing: whether a question without an answer is an error or does not count.

        Raises:
            DataError: an answer is missing, or no option or question is called so.
        """
        sums = np.zeros((len(answers), len(self.criteria)))
        weights = np.zeros_like(sums)
        columns = {name: number for number, name in enumerate(self.criteria)}
        asked = {question.id for question in self.questions}
        for number, given in enumerate(answers):
            unknown = [name for name in given if name not in asked]
            if unknown:
                raise DataError(
                    f"there is no question {unknown[0]!r}",
                    where=f"answers {number}",
                    fix=f"questions are {', '.join(sorted(asked))}",
                )
            for question in self.questions:
                option = given.get(question.id)
                if option is None and missing == "ignore":
                    continue
                if option is None or option not in question.options:
                    raise DataError(
                        f"question {question.id!r} has the answer {option!r}",
                        where=f"answers {number}",
                        fix=f"options are {', '.join(question.options)}",
                    )
                sums[number, columns[question.criterion]] += question.weight * question.options[option]
                weights[number, columns[question.criterion]] += question.weight
        return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)

    def totals(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weighted mean over the criteria that were answered: (replies, criteria) -> (replies,)."""
        known = ~np.isnan(scores)
        weights = known @ self.weights
        sums = np.where(known, scores, 0.0) @ self.weights
        totals: NDArray[np.float64] = np.divide(sums, weights, out=np.full(len(scores), np.nan), where=weights > 0)
        return totals


def level_to_p(level: int, levels: Sequence[float] = FIVE_LEVELS) -> float:
    """The soft label of a preference on a scale; level 0 is "the first is much better".

    Raises:
        DataError: there is no such level.
    """
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level < len(levels):
        raise DataError(f"there is no preference level {level!r}", fix=f"levels are 0 to {len(levels) - 1}")
    return float(levels[level])


def rows_from_levels(
    rows: Iterable[Mapping[str, Any]],
    *,
    levels: Sequence[float] = FIVE_LEVELS,
    on_bad_row: OnBadRow = "error",
) -> tuple[list[dict[str, Any]], dict[str, Count]]:
    """Rows ``prompt``, ``first``, ``second``, ``level`` as preference rows with soft labels; ties stay, with p = .5.

    Args:
        levels: p of each level; ``HARD_LEVELS`` softens ties only.

    Returns:
        The rows, and by reason those left out.

    Raises:
        DataError: a row lacks a column, has equal replies, or a level that is not there.
    """
    made, bad = [], BadRows(on_bad_row)
    for number, row in enumerate(rows):
        try:
            p = level_to_p(need(row, "level"), levels)
            found = preference_row(row.get("prompt"), need(row, "first"), need(row, "second"), p)
        except DataError as error:
            bad.add(f"row {number}", error)
        else:
            made.append(found)
    return made, bad.counts()
