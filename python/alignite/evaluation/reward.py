"""How good a reward model is: accuracy with its interval, calibration, what it has to do with length, disagreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.data.survey import Count
from alignite.errors import DataError, UsageError
from alignite.evaluation.best_of_n import Pool, best_of_n_curve
from alignite.evaluation.candidates import (
    AnyScorer,
    Candidates,
    Placed,
    Skipped,
    form_for,
    number_rows,
    read_candidates,
    score_candidates,
)
from alignite.evaluation.intervals import wilson_interval
from alignite.types import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Accuracy:
    """How many pairs are ordered right; equal scores are not.

    ``low`` and ``high`` are Wilson's 95 % interval (JASA 22:209-212, 1927).
    """

    pairs: int
    right: int
    ties: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """Whether s(d), with d the difference of the scores, is how often the first reply is the better one.

    Each pair counts in both orders, since which stands first says nothing. ``bins`` hold (mean s(d), share of right
    ones, pairs) of equal parts of 1/2 to 1, empty ones left out; ``ece`` is the mean distance of the two, weighted by
    the pairs (arXiv 1706.04599, equation 3); ``log_loss`` the mean of -log s(d_right).
    """

    ece: float
    log_loss: float
    bins: list[tuple[float, float, int]]


@dataclass(frozen=True)
class LengthCorrelation:
    """Correlation of scores with reply lengths in characters; NaN where either does not vary.

    ``pearson`` and ``spearman`` are over all replies, ``within_pairs`` is Pearson's of the differences in a pair, which
    what some prompts do to both does not touch.
    """

    pearson: float
    spearman: float
    within_pairs: float


@dataclass(frozen=True)
class RewardReport:
    """What :func:`evaluate_reward` found.

    Args:
        categories: the accuracy by the category column.
        best_of_n: of rankings: by n, the mean of the score in the data of the reply that the model likes best among n
            of them (:func:`alignite.evaluation.best_of_n.best_of_n_curve`); empty without rankings.
        best_possible: the same of a model that knows the scores.
        no_pair: rankings whose replies are all equally good.
        skipped: by reason, how many rows are left out; ``examples``: the first places of each.
    """

    accuracy: Accuracy
    calibration: Calibration
    length: LengthCorrelation
    categories: dict[str, Accuracy]
    best_of_n: dict[int, float]
    best_possible: dict[int, float]
    no_pair: int
    skipped: dict[str, int]
    examples: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ScoredSet:
    """Held-out replies and a model's scores of them, float64 (replies, heads) a row."""

    candidates: list[Candidates]
    scores: list[NDArray[np.float64]]
    skipped: dict[str, Count]

    @property
    def num_heads(self) -> int:
        return int(self.scores[0].shape[1])

    def columns(self) -> NDArray[np.float64]:
        """The scores of all replies, float64 (heads, replies)."""
        return np.concatenate(self.scores).T

    def only(self, keep: Callable[[Candidates], bool]) -> ScoredSet:
        """The same of some rows."""
        kept = [(one, found) for one, found in zip(self.candidates, self.scores, strict=True) if keep(one)]
        return ScoredSet([one for one, _ in kept], [found for _, found in kept], self.skipped)

    def with_column(self, scores: NDArray[np.float64]) -> ScoredSet:
        """The same with one score a reply, float64 (replies,)."""
        ends = np.cumsum([len(one) for one in self.scores])[:-1].tolist()
        return ScoredSet(self.candidates, np.split(scores[:, None], ends), self.skipped)


def score_rows(
    model: AnyScorer, rows: Iterable[Placed], *, format: str | None = None, skipped: Skipped | None = None
) -> ScoredSet:
    """Read held-out pairs and rankings, and score every reply once.

    Args:
        model: a scorer, or a plain function of prompts and completions. One with a chat template is given messages.
        rows: with their places.
        format: of the rows; default: told from each.
        skipped: what was left out so far.

    Raises:
        DataError: no row is a pair or a ranking that can be scored; others are counted. And as
            :func:`alignite.evaluation.candidates.score_candidates`.
    """
    skipped = Skipped() if skipped is None else skipped
    candidates = list(read_candidates(rows, skipped, form=form_for(model), format=format))
    if not candidates:
        raise DataError("no row is a pair", why=str(skipped) or None, fix="give prompt, chosen and rejected")
    scores = score_candidates(model, candidates, skipped)
    kept = [(one, found) for one, found in zip(candidates, scores, strict=True) if found is not None]
    if not kept:
        raise DataError("no pair can be scored", why=str(skipped), fix="give pairs that the model takes")
    return ScoredSet([one for one, _ in kept], [found for _, found in kept], skipped.counts())


def evaluate_reward(
    model: AnyScorer,
    rows: Iterable[Mapping[str, Any]],
    *,
    category_column: str | None = "category",
    num_bins: int = 10,
) -> RewardReport:
    """Score held-out pairs and report on them.

    Args:
        model: gives one score a reply; a scorer, or a plain function of prompts and completions.
        rows: pairs in any format that :func:`alignite.data.convert.convert_rows` reads (prompt, chosen, rejected; HH
            transcripts; ...), or rankings, whose strict pairs all count. A model with a chat template is given
            messages.
        category_column: accuracy is reported for each of its values too.
        num_bins: of the calibration.

    Raises:
        DataError: no row is a pair that can be scored; others are counted in ``skipped``. UsageError: the model has
            several heads, or gives no number a reply. NumericsError: a score is not finite; the row is named. And what
            the model raises.
    """
    return report_on(score_rows(model, number_rows(rows)), category_column=category_column, num_bins=num_bins)


def report_on(
    scored: ScoredSet, *, head: int | None = None, category_column: str | None = "category", num_bins: int = 10
) -> RewardReport:
    """The report on one head of a scored set.

    Args:
        head: which; default: the only one.

    Raises:
        UsageError: there are several heads and none is named, or there is no such head. DataError: no two replies of a
            row differ in the data.
    """
    if head is None and scored.num_heads > 1:
        raise UsageError("the model gives several scores a reply", fix="take one with SelectHead, or CombinedReward")
    if head is not None and not 0 <= head < scored.num_heads:
        raise UsageError(f"there is no head {head} among {scored.num_heads}", fix="count from 0")
    chances: list[float] = []
    first: list[float] = []
    second: list[float] = []
    lengths: list[tuple[int, int]] = []
    categories: list[str | None] = []
    pools = []
    for one, found in zip(scored.candidates, scored.scores, strict=True):
        scores = found[:, head or 0]
        category = one.row.get(category_column) if category_column is not None else None
        for better, worse in one.pairs().tolist():
            first.append(float(scores[better]))
            second.append(float(scores[worse]))
            chances.append(1.0 if one.is_ranking else float(one.values[better]))
            lengths.append((_length(one.replies[better]), _length(one.replies[worse])))
            categories.append(None if category is None else str(category))
        if one.is_ranking:
            pools.append(Pool(scores, one.values))
    if not first:
        raise DataError("no two replies of a row differ in the data", fix="give pairs, or rankings that are no ties")
    differences = np.array(first) - np.array(second)
    names = sorted({name for name in categories if name is not None})
    member = {name: np.array([category == name for category in categories]) for name in names}
    return RewardReport(
        pair_accuracy(differences),
        calibration(differences, num_bins=num_bins, chances=np.array(chances)),
        length_correlation(np.array(first + second), np.array(lengths, dtype=np.float64).T.reshape(-1)),
        {name: pair_accuracy(differences[of]) for name, of in member.items()},
        best_of_n_curve(pools) if pools else {},
        best_of_n_curve([Pool(pool.values, pool.values) for pool in pools]) if pools else {},
        sum(not len(one.pairs()) for one in scored.candidates),
        {reason: found.count for reason, found in scored.skipped.items()},
        {reason: found.examples for reason, found in scored.skipped.items()},
    )


class SelectHead:
    """One head of a model with several."""

    def __init__(self, model: Scorer, head: int) -> None:
        self.model, self.head = model, head

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """float64 (replies,)."""
        scores = self.model.score(prompts, completions)
        if scores.ndim != 2 or not 0 <= self.head < scores.shape[1]:
            raise UsageError(f"there is no head {self.head} among scores of shape {scores.shape}", fix="count from 0")
        return np.asarray(scores[:, self.head])


def pair_accuracy(differences: NDArray[np.float64]) -> Accuracy:
    """Accuracy of d = score of the better reply minus that of the worse, float64 (pairs,).

    Raises:
        UsageError: a difference is not finite.
    """
    _check_finite(differences)
    pairs, right = len(differences), int((differences > 0).sum())
    low, high = wilson_interval(right, pairs)
    return Accuracy(pairs, right, int((differences == 0).sum()), right / pairs if pairs else math.nan, low, high)


def calibration(
    differences: NDArray[np.float64], *, num_bins: int = 10, chances: NDArray[np.float64] | None = None
) -> Calibration:
    """Calibration of s(d), from d of each pair, better minus worse, float64 (pairs,).

    ``chances``, float64 (pairs,): how likely the better reply is the better one; 1 by default.

    Raises:
        UsageError: ``num_bins`` is below 1, or a difference is not finite.
    """
    _check_finite(differences)
    if num_bins < 1:
        raise UsageError(f"num_bins is {num_bins}", fix="it must be at least 1")
    # The reply that scores higher is said to be better with probability s(|d|); it is when d > 0, and half so at 0.
    said = 1 / (1 + np.exp(-np.abs(differences)))
    p = np.ones(len(differences)) if chances is None else chances
    right = np.where(differences == 0, 0.5, np.where(differences > 0, p, 1 - p))
    losses = p * np.logaddexp(0.0, -differences) + (1 - p) * np.logaddexp(0.0, differences)
    place = np.minimum(((said - 0.5) * 2 * num_bins).astype(np.int64), num_bins - 1)
    bins = []
    for number in np.unique(place).tolist():
        inside = place == number
        bins.append((float(said[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    pairs = max(len(differences), 1)
    ece = sum(abs(mean - share) * count for mean, share, count in bins) / pairs
    return Calibration(float(ece), float(losses.sum() / pairs), bins)


def length_correlation(scores: NDArray[np.float64], lengths: NDArray[np.float64]) -> LengthCorrelation:
    """Correlations of scores and lengths, float64 (2 pairs,): the better replies, then the worse of the same pairs."""
    gaps = [first - second for first, second in (np.split(scores, 2), np.split(lengths, 2))]
    return LengthCorrelation(
        _pearson(scores, lengths), _pearson(_ranks(scores), _ranks(lengths)), _pearson(gaps[0], gaps[1])
    )


def ensemble_disagreement(scores: NDArray[np.float64]) -> dict[str, float]:
    """How much several models differ about pairs.

    Args:
        scores: float64 (models, 2, pairs): each model's scores of the better and of the worse replies.

    Returns:
        ``disagreement``, the mean over pairs of the share of model pairs that order it differently, ties with neither;
        ``std``, the mean over replies of the deviation over models, each model's scores first brought to mean 0 and
        deviation 1.

    Raises:
        UsageError: there are fewer than two models, or a score is not finite.
    """
    if scores.ndim != 3 or scores.shape[1] != 2 or len(scores) < 2:
        raise UsageError(f"the scores are of shape {scores.shape}", fix="give (models, 2, pairs) of two or more models")
    _check_finite(scores)
    signs = np.sign(scores[:, 0] - scores[:, 1])
    first, second = np.triu_indices(len(scores), 1)
    flat = scores.reshape(len(scores), -1)
    spread = flat.std(1, keepdims=True)
    scaled = (flat - flat.mean(1, keepdims=True)) / np.where(spread == 0, 1.0, spread)
    return {
        "disagreement": float((signs[first] * signs[second] < 0).mean()),
        "std": float(scaled.std(0).mean()),
    }


def _check_finite(values: NDArray[np.float64]) -> None:
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        raise UsageError(f"a score is {values[place]}", where=f"place {place}", fix="leave such replies out")


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def _length(reply: Any) -> int:
    if isinstance(reply, str):
        return len(reply)
    return sum(len(str(message.get("content") or "")) for message in reply)
