"""Rankings as pairs, comparisons as arrays, and Elo ratings. Bradley-Terry and Plackett-Luce stand in strengths.py."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignite.data.survey import Count
from alignite.errors import DataError, UsageError
from alignite.feedback.rows import BadRows, OnBadRow, need, preference_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

ELO_PER_NAT = 400.0 / math.log(10.0)
"""A Bradley-Terry strength of 1 nat in Elo points: 173.7178, so that both give the same chances of winning."""


@dataclass(frozen=True)
class RankedPairs:
    """All C(K,2) pairs of each ranking of K replies, in the order of the rankings.

    Args:
        ranking: int64 (pairs,), the number of the ranking.
        better, worse: int64 (pairs,), indices into the ranking's scores; of a tie ``better`` is the earlier one.
        gap: int64 (pairs,), how many ranks lie between them, counting ties as one rank; 0 for ties.
        tie: bool (pairs,).
    """

    ranking: NDArray[np.int64]
    better: NDArray[np.int64]
    worse: NDArray[np.int64]
    gap: NDArray[np.int64]
    tie: NDArray[np.bool_]


def pairs_from_rankings(rankings: Sequence[Sequence[float]], *, ties: Literal["keep", "drop"] = "keep") -> RankedPairs:
    """The pairs of rankings (InstructGPT, arXiv 2203.02155, section 3.5).

    Args:
        rankings: of each, the scores of its replies; higher is better, so a rank counts as its negative.
        ties: whether pairs with equal scores stay, flagged.

    Raises:
        DataError: a ranking has one reply or none, or a score that is not finite.
    """
    by_length: dict[int, list[int]] = {}
    for index, scores in enumerate(rankings):
        if len(scores) < 2:
            raise DataError(
                f"the ranking has {len(scores)} replies", where=f"ranking {index}", fix="a ranking needs two or more"
            )
        by_length.setdefault(len(scores), []).append(index)
    parts: list[NDArray[np.int64]] = []
    for length, numbers in by_length.items():
        scores_ = np.array([rankings[number] for number in numbers], dtype=np.float64)
        if not np.isfinite(scores_).all():
            bad = numbers[int(np.argmin(np.isfinite(scores_).all(axis=1)))]
            raise DataError("a score is not finite", where=f"ranking {bad}", why=f"scores are {list(rankings[bad])}")
        first, second = np.triu_indices(length, 1)
        places = _dense_ranks(scores_)
        gap = places[:, second] - places[:, first]
        number = np.repeat(np.array(numbers, dtype=np.int64), len(first))
        better = np.where(gap >= 0, first, second).ravel()
        worse = np.where(gap >= 0, second, first).ravel()
        parts.append(np.stack([number, better, worse, np.abs(gap).ravel()]))
    table = np.concatenate(parts, axis=1) if parts else np.zeros((4, 0), dtype=np.int64)
    table = table[:, np.argsort(table[0], kind="stable")]
    if ties == "drop":
        table = table[:, table[3] > 0]
    return RankedPairs(table[0], table[1], table[2], table[3], table[3] == 0)


def _dense_ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rank 0 for the highest score of each row, without holes: (rows, K) -> (rows, K)."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    steps = np.zeros(scores.shape, dtype=np.int64)
    steps[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, axis=1)
    return ranks


def rows_from_rankings(
    rows: Iterable[Mapping[str, Any]],
    *,
    ties: Literal["keep", "drop"] = "keep",
    on_bad_row: OnBadRow = "error",
) -> tuple[list[dict[str, Any]], dict[str, Count]]:
    """Ranked rows as preference rows: every pair, with its ``gap`` in ranks.

    Args:
        rows: ``prompt``, ``completions`` and ``scores`` (higher is better) or ``ranks`` (1 is best).
        ties: ``keep`` gives a tie as a row with p = .5, which teaches that neither is better.
        on_bad_row: whether a row that cannot be used ends the work or is counted; a pair of equal or empty replies is
            counted alone.

    Returns:
        Rows ``prompt``, ``chosen``, ``rejected``, ``p`` (1, ties .5), ``gap``; and by reason what was left out.

    Raises:
        DataError: a row lacks a column, has one reply, equal replies, or scores that are no finite numbers.
    """
    made: list[dict[str, Any]] = []
    bad = BadRows(on_bad_row)
    for number, row in enumerate(rows):
        try:
            replies = list(need(row, "completions"))
            pairs = pairs_from_rankings([_scores(row, len(replies))], ties=ties)
        except DataError as error:
            bad.add(f"row {number}", error)
            continue
        columns = (pairs.better.tolist(), pairs.worse.tolist(), pairs.gap.tolist())
        for better, worse, gap in zip(*columns, strict=True):
            p = 1.0 if gap else 0.5
            try:
                made.append(preference_row(row.get("prompt"), replies[better], replies[worse], p, gap=gap))
            except DataError as error:  # of this pair alone: the ranking's others can be used
                bad.add(f"row {number}, replies {better} and {worse}", error)
    return made, bad.counts()


def _scores(row: Mapping[str, Any], replies: int) -> list[float]:
    ranked = row.get("scores") is None and row.get("ranks") is not None
    values = list(need(row, "ranks" if ranked else "scores"))
    if len(values) != replies:
        raise DataError("there is not one score for each reply", why=f"{replies} replies, {len(values)} scores")
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise DataError("a score is not a number", why=f"scores are {values!r:.80}")
    return [-value for value in values] if ranked else values


@dataclass(frozen=True)
class Comparisons:
    """Comparisons of items by number.

    Args:
        items: what the numbers stand for, in the order in which they first came.
        first, second: int64 (n,), indices into ``items``.
        outcome: float64 (n,), 1 where the first won, 0 where the second, .5 for a tie; between them a soft label.
    """

    items: tuple[Hashable, ...]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    outcome: NDArray[np.float64]

    @classmethod
    def of(cls, triples: Iterable[tuple[Hashable, Hashable, float]]) -> Comparisons:
        """Comparisons from (first, second, outcome).

        Raises:
            DataError: there are none, an item meets itself, or an outcome is not between 0 and 1.
        """
        numbers: dict[Hashable, int] = {}
        ends: list[int] = []
        outcomes: list[float] = []
        for place, (first, second, outcome) in enumerate(triples):
            if first == second:
                raise DataError(f"{first!r} is compared with itself", where=f"comparison {place}")
            if not isinstance(outcome, int | float | np.floating | np.integer) or not 0 <= outcome <= 1:
                raise DataError(
                    f"the outcome is {outcome!r}",
                    where=f"comparison {place}",
                    fix="1 where the first won, 0 where the second did, .5 for a tie",
                )
            ends += [numbers.setdefault(first, len(numbers)), numbers.setdefault(second, len(numbers))]
            outcomes.append(float(outcome))
        if not outcomes:
            raise DataError("there are no comparisons", fix="give at least one")
        return cls(tuple(numbers), np.array(ends[::2]), np.array(ends[1::2]), np.array(outcomes))

    @classmethod
    def of_rankings(cls, rankings: Iterable[Sequence[Hashable]]) -> Comparisons:
        """Every pair of every ranking of items, best first.

        Raises:
            DataError: there are no pairs, or an item stands twice in a ranking.
        """
        return cls.of((better, worse, 1.0) for ranking in rankings for better, worse in combinations(ranking, 2))

    def __len__(self) -> int:
        return len(self.outcome)


def elo_expected(rating: float, other: float, *, scale: float = 400.0) -> float:
    """The chance of winning that Elo ratings give: E = 1 / (1 + 10^((R_other - R) / scale))."""
    # The exponent is bounded, so that ratings of any size give a chance and no overflow.
    exponent = max(min((other - rating) / scale, 300.0), -300.0)
    return 1.0 / (1.0 + math.pow(10.0, exponent))


def elo_update(
    rating: float, other: float, outcome: float, *, k: float = 32.0, scale: float = 400.0
) -> tuple[float, float]:
    """Both ratings after a game: R + K (S - E). 1500 beats 1600 at K = 32: 1520.4821 and 1579.5179."""
    change = k * (outcome - elo_expected(rating, other, scale=scale))
    return rating + change, other - change


def elo(
    comparisons: Comparisons, *, k: float = 32.0, initial: float = 1500.0, scale: float = 400.0
) -> NDArray[np.float64]:
    """Online Elo ratings after the comparisons in their order, which matters: Bradley-Terry's fit does not have one.

    Source: Elo (1978), as leagues of language models use it.

    Returns:
        float64 (items,), in Elo points.

    Raises:
        UsageError: ``k`` or ``scale`` is not positive.
    """
    if not (k > 0 and scale > 0):
        raise UsageError(f"k is {k} and scale is {scale}", fix="both must be positive")
    ratings = [float(initial)] * len(comparisons.items)
    factor = math.log(10.0) / scale
    exp = math.exp
    columns = comparisons.first.tolist(), comparisons.second.tolist(), comparisons.outcome.tolist()
    for first, second, outcome in zip(*columns, strict=True):
        exponent = (ratings[second] - ratings[first]) * factor
        change = k * (outcome - 1.0 / (1.0 + exp(exponent if exponent < 700.0 else 700.0)))
        ratings[first] += change
        ratings[second] -= change
    return np.array(ratings)
