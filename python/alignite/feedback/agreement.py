"""How far raters agree: shares, Cohen's and Fleiss' kappa, Krippendorff's alpha, Kendall's tau, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignite.errors import DataError, UsageError
from alignite.evaluation.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Level = Literal["nominal", "ordinal", "interval", "ratio"]
MISSING = -1
"""The code of a rating that is not there."""


@dataclass(frozen=True)
class Share:
    """A share of ``count`` with Wilson's bounds (1927). ``right`` need not be whole: half for a tie.

    ``low`` and ``high`` are (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    """

    share: float
    right: float
    count: int
    low: float
    high: float


def wilson(right: float, count: int, level: float = 0.95) -> Share:
    """A share and its bounds, each of them exceeded with chance (1 - level) / 2.

    Raises:
        DataError: nothing was counted, or more are right than there are.
        UsageError: ``level`` does not lie between 0 and 1.
    """
    z = _z(level)
    if count < 1 or not 0 <= right <= count:
        raise DataError(f"{right} of {count} is no share", fix="count at least one")
    low, high = wilson_interval(right, count, z)
    # At the ends exactly, whatever rounding says.
    return Share(right / count, float(right), count, 0.0 if right == 0 else low, 1.0 if right == count else high)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"level is {level}", fix="it must lie between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)


def raw_agreement(one: Sequence[Any], other: Sequence[Any], level: float = 0.95) -> Share:
    """How often two raters say the same of an item; items that one of them did not rate (None, NaN) do not count.

    Raises:
        DataError: the lists differ in length or share no rated item.
    """
    codes, _ = _side_by_side(one, other)
    both = (codes != MISSING).all(axis=1)
    return wilson(float((codes[both, 0] == codes[both, 1]).sum()), int(both.sum()), level)


def _side_by_side(one: Sequence[Any], other: Sequence[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    if len(one) != len(other):
        raise _ragged()
    table = np.empty((len(one), 2), dtype=object)
    table[:, 0], table[:, 1] = list(one), list(other)
    return encode(table)


def _ragged() -> DataError:
    return DataError("the two lists differ in length", fix="give one value an item, None where a label is missing")


def encode(table: ArrayLike) -> tuple[NDArray[np.int64], list[Any]]:
    """A table of ratings as codes: int64 of its shape, ``MISSING`` for None and NaN; and the sorted categories.

    Raises:
        DataError: values cannot be sorted together.
    """
    values = np.asarray(table)
    if values.dtype.kind in "fiub":
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
        categories, found = np.unique(values[~missing], return_inverse=True)
    else:
        values = values.astype(object)
        missing = np.array([v is None or v != v for v in values.ravel()], dtype=bool).reshape(values.shape)
        try:
            categories, found = np.unique(values[~missing], return_inverse=True)
        except TypeError as error:
            raise DataError("ratings of different kinds stand together", why=str(error), fix="use one type") from error
    codes = np.full(values.shape, MISSING, dtype=np.int64)
    codes[~missing] = found
    return codes, categories.tolist()


def cohen_kappa(
    one: Sequence[Any], other: Sequence[Any], *, weights: Literal["none", "linear", "quadratic"] = "none"
) -> float:
    """Cohen's kappa (1960): (p_o - p_e) / (1 - p_e); with weights on the distance of sorted categories, Cohen (1968).

    Items that one of the two did not rate do not count.

    Raises:
        DataError: the lists differ in length, share no rated item, or hold one category only, where kappa is 0 / 0.
    """
    codes, categories = _side_by_side(one, other)
    codes = codes[(codes != MISSING).all(axis=1)]
    k = len(categories)
    counts = np.bincount(codes[:, 0] * k + codes[:, 1], minlength=k * k).reshape(k, k).astype(np.float64)
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(np.float64)
    cost = distance**2 if weights == "quadratic" else distance if weights == "linear" else (distance > 0) * 1.0
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(counts.sum(), 1.0)
    return _chance_corrected(float((cost * counts).sum()), float((cost * expected).sum()))


def _chance_corrected(observed: float, expected: float) -> float:
    if expected == 0:
        raise DataError(
            "the agreement is undefined",
            why="there are no ratings to compare, or all are the same: nothing could disagree",
            fix="rate items that differ, or report the raw agreement",
        )
    return 1.0 - observed / expected


def fleiss_kappa(counts: ArrayLike) -> float:
    """Fleiss' kappa (1971).

    Args:
        counts: (items, categories), how many raters put an item into a category; every item has as many raters.

    Raises:
        DataError: counts are negative or no whole numbers, items have different numbers of raters or fewer than two,
            or all ratings are the same.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.size == 0 or not (np.isfinite(table).all() and (table >= 0).all()):
        raise DataError("the counts are no table of items by categories", fix="give counts of 0 or more")
    raters = table.sum(axis=1)
    if raters[0] < 2 or (raters != raters[0]).any():
        raise DataError(
            "items have different numbers of raters, or fewer than two",
            why=f"from {raters.min():g} to {raters.max():g}",
            fix="use krippendorff_alpha, which takes missing ratings",
        )
    n = raters[0]
    agreed = ((table**2).sum(axis=1) - n) / (n * (n - 1))
    shares = table.sum(axis=0) / table.sum()
    return _chance_corrected(1.0 - float(agreed.mean()), 1.0 - float((shares**2).sum()))


def krippendorff_alpha(ratings: ArrayLike, *, level: Level = "nominal") -> float:
    """Krippendorff's alpha: 1 - D_o / D_e (Content Analysis, 2004, chapter 11).

    Args:
        ratings: (items, raters), None or NaN where a rater did not rate. Numbers, or for ``nominal`` any labels.
        level: how labels differ: ``nominal`` at all, ``ordinal`` by how many ratings lie between them, ``interval`` by
            (a - b)^2, ``ratio`` by ((a - b) / (a + b))^2.

    Raises:
        DataError: no item has two ratings, all ratings are the same, or labels are no numbers where they must be.
    """
    codes, categories = encode(ratings)
    if codes.ndim != 2:
        raise DataError("the ratings are no table of items by raters", fix="give a row an item and a column a rater")
    k = len(categories)
    items, _ = np.nonzero(codes != MISSING)
    counts = np.bincount(items * k + codes[codes != MISSING], minlength=len(codes) * k).astype(np.float64)
    table = counts.reshape(len(codes), k) if k else np.zeros((len(codes), 1))
    table = table[table.sum(axis=1) >= 2]
    pairs_with = table / (table.sum(axis=1, keepdims=True) - 1)
    coincidence = pairs_with.T @ table
    coincidence[np.diag_indices(len(coincidence))] -= pairs_with.sum(axis=0)
    totals = coincidence.sum(axis=1)
    cost = _distances(categories, totals, level)
    expected = float((cost * np.outer(totals, totals)).sum()) / max(float(totals.sum()) - 1, 1.0)
    return _chance_corrected(float((cost * coincidence).sum()), expected)


def _distances(categories: list[Any], totals: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    if level == "nominal":
        return 1.0 - np.eye(max(len(categories), 1))
    if level == "ordinal":
        reach = np.cumsum(totals) - totals / 2  # the middle of each category among all ratings in order
        return np.subtract.outer(reach, reach) ** 2
    if level not in ("interval", "ratio"):
        raise UsageError(f"there is no level {level!r}", fix="levels are nominal, ordinal, interval and ratio")
    try:
        values = np.array(categories, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"labels are no numbers, which {level} needs", why=str(error), fix="use nominal") from error
    apart = np.subtract.outer(values, values)
    if level == "ratio":
        both = np.add.outer(values, values)
        apart = np.divide(apart, both, out=np.zeros_like(apart), where=both != 0)
    return apart**2


def kendall_tau_b(one: ArrayLike, other: ArrayLike) -> float:
    """Kendall's tau-b (1945) of two scorings of the same items, in O(n log^2 n).

    tau_b = (concordant - discordant) / sqrt((n0 - ties of one) (n0 - ties of the other)), n0 = n (n - 1) / 2.

    Raises:
        DataError: lengths differ, a score is not finite, or one side says the same of all.
    """
    x, y = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise _ragged()
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("a score is not finite", fix="leave such items out on both sides")
    n0 = len(x) * (len(x) - 1) // 2
    xs, ys = np.unique(x, return_inverse=True)[1], np.unique(y, return_inverse=True)[1]
    tied_x, tied_y = _tied(xs), _tied(ys)
    tied_both = _tied(xs * (len(x) + 1) + ys)
    if tied_x == n0 or tied_y == n0:
        raise DataError("the rank agreement is undefined", why="one side gives all items the same score")
    # Sorted by x and then y, what stands the wrong way round by y is discordant; ties of x are in order.
    discordant = _inversions(ys[np.lexsort((ys, xs))])
    concordant = n0 - tied_x - tied_y + tied_both - discordant
    return float((concordant - discordant) / (np.sqrt(float(n0 - tied_x)) * np.sqrt(float(n0 - tied_y))))


def _tied(codes: NDArray[np.int64]) -> int:
    counts = np.unique(codes, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: NDArray[np.int64]) -> int:
    """Pairs i < j with ranks[i] > ranks[j]: they differ first at one bit, so bit by bit among equal higher bits."""
    found = 0
    for bit in range(int(ranks.max(initial=0)).bit_length()):
        order = np.argsort(ranks >> (bit + 1), kind="stable")
        groups, bits = ranks[order] >> (bit + 1), (ranks[order] >> bit) & 1
        ones = np.cumsum(bits)
        starts = np.searchsorted(groups, groups, side="left")
        before = ones - (ones - bits)[starts]
        found += int(before[bits == 0].sum())
    return found


def pairwise_accuracy(predicted: ArrayLike, gold: ArrayLike, level: float = 0.95) -> Share:
    """How often predicted preferences agree with gold ones, with Wilson's bounds.

    Args:
        predicted: (n,), above 0 where the first of a pair is preferred, such as a difference of scores; 0 counts half.
        gold: (n,), the same; pairs whose gold is 0 have no right answer and do not count.

    Raises:
        DataError: lengths differ, a number is not finite, or no pair has a gold preference.
    """
    guess, truth = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if guess.shape != truth.shape or guess.ndim != 1:
        raise _ragged()
    if not (np.isfinite(guess).all() and np.isfinite(truth).all()):
        raise DataError("a preference is not finite", fix="leave such pairs out")
    guess, truth = np.sign(guess[truth != 0]), np.sign(truth[truth != 0])
    return wilson(float((guess == truth).sum() + 0.5 * (guess == 0).sum()), len(truth), level)


@dataclass(frozen=True)
class Interval:
    """A statistic, its bootstrap bounds, and how many samples left it undefined."""

    value: float
    low: float
    high: float
    undefined: int


def bootstrap_interval(
    statistic: Callable[..., float], *tables: ArrayLike, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a statistic under resampling of items (Efron 1979), the same for a seed.

    Args:
        statistic: called with the tables' resampled rows; a sample for which it raises DataError is left out, counted.
        tables: arrays whose first axis is items, drawn together.

    Raises:
        DataError: the statistic is undefined for the data or for more than half of the samples.
        UsageError: ``samples`` or ``level`` is out of range.
    """
    _z(level)
    if samples < 1:
        raise UsageError(f"samples is {samples}", fix="draw at least 1; 1000 is usual")
    arrays = [np.asarray(table) for table in tables]
    value = float(statistic(*arrays))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        rows = rng.integers(0, len(arrays[0]), len(arrays[0]))
        try:
            found.append(float(statistic(*(array[rows] for array in arrays))))
        except DataError:
            continue
    if len(found) * 2 < samples:
        raise DataError("the statistic is undefined for most samples of the items", fix="rate more items")
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(value, float(low), float(high), samples - len(found))
