"""How good a reward model is: accuracy with its interval, calibration, what it has to do with length, disagreement."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.data.convert import convert_rows
from alignite.errors import DataError, UsageError
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
    """What :func:`evaluate_reward` found; ``categories`` by the category column."""

    accuracy: Accuracy
    calibration: Calibration
    length: LengthCorrelation
    categories: dict[str, Accuracy]
    skipped: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def evaluate_reward(
    model: Scorer, rows: Iterable[Mapping[str, Any]], *, category_column: str | None = "category", num_bins: int = 10
) -> RewardReport:
    """Score held-out pairs and report on them.

    Args:
        model: gives one score a reply.
        rows: pairs in any format that :func:`alignite.data.convert.convert_rows` reads (prompt, chosen, rejected; HH
            transcripts; ...), or rankings, whose strict pairs all count. A model with a chat template is given
            messages.
        category_column: accuracy is reported for each of its values too.
        num_bins: of the calibration.

    Raises:
        DataError: no row is a pair that can be scored; others are counted in ``skipped``. UsageError: the model has
            several heads. And what the model raises.
    """
    prompts: list[Any] = []
    chosen: list[Any] = []
    rejected: list[Any] = []
    categories: list[str | None] = []
    skipped: dict[str, int] = {}
    template = getattr(getattr(model, "tokenizer", None), "chat_template", None)
    for row in rows:
        category = row.get(category_column) if category_column is not None else None
        try:
            pairs, _ = convert_rows([dict(row)], "preference", form="auto" if template is None else "messages")
        except DataError as error:
            reason = _reason(error)
            skipped[reason] = skipped.get(reason, 0) + 1
            continue
        for pair in pairs:
            prompts.append(pair.get("prompt", ""))
            chosen.append(pair["chosen"])
            rejected.append(pair["rejected"])
            categories.append(None if category is None else str(category))
    if not prompts:
        raise DataError("no row is a pair", why="; ".join(skipped) or None, fix="give prompt, chosen and rejected")
    first, second = _pair_scores(model, prompts, chosen, rejected, skipped)
    kept = np.flatnonzero(~np.isnan(first))
    if not len(kept):
        raise DataError("no pair can be scored", why="; ".join(skipped), fix="give pairs that the model takes")
    first, second = first[kept], second[kept]
    scores = np.concatenate([first, second])
    lengths = np.array([_length(side[n]) for side in (chosen, rejected) for n in kept.tolist()], dtype=np.float64)
    categories = [categories[n] for n in kept.tolist()]
    names = sorted({name for name in categories if name is not None})
    member = {name: np.array([category == name for category in categories]) for name in names}
    return RewardReport(
        pair_accuracy(first - second),
        calibration(first - second, num_bins=num_bins),
        length_correlation(scores, lengths),
        {name: pair_accuracy((first - second)[of]) for name, of in member.items()},
        skipped,
    )


def _pair_scores(
    model: Scorer, prompts: Sequence[Any], chosen: Sequence[Any], rejected: Sequence[Any], skipped: dict[str, int]
) -> NDArray[np.float64]:
    """Scores (2, pairs) of the better and the worse replies; NaN for a pair that cannot be scored, which is counted."""
    try:
        scores = np.asarray(model.score([*prompts, *prompts], [*chosen, *rejected]))
    except DataError as error:
        if len(prompts) > 1:
            pairs = zip(prompts, chosen, rejected, strict=True)
            parts = [_pair_scores(model, [prompt], [good], [bad], skipped) for prompt, good, bad in pairs]
            return np.concatenate(parts, axis=1)
        reason = _reason(error)
        skipped[reason] = skipped.get(reason, 0) + 1
        return np.full((2, 1), np.nan)
    if scores.ndim != 1:
        raise UsageError("the model gives several scores a reply", fix="take one with SelectHead, or CombinedReward")
    return scores.reshape(2, -1)


def _reason(error: DataError) -> str:
    return (error.why or error.what).strip()


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
    """Accuracy of d = score of the better reply minus that of the worse, float64 (pairs,)."""
    pairs, right = len(differences), int((differences > 0).sum())
    low, high = wilson_interval(right, pairs)
    return Accuracy(pairs, right, int((differences == 0).sum()), right / pairs if pairs else math.nan, low, high)


def wilson_interval(right: float, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval of a share that a normal test at ``z`` does not refuse; 0 to 1 when there is nothing."""
    if total == 0:
        return 0.0, 1.0
    p, over = right / total, 1 + z * z / total
    middle = p + z * z / (2 * total)
    reach = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max((middle - reach) / over, 0.0), min((middle + reach) / over, 1.0)


def calibration(differences: NDArray[np.float64], *, num_bins: int = 10) -> Calibration:
    """Calibration of s(d), from d of each pair, better minus worse, float64 (pairs,).

    Raises:
        UsageError: ``num_bins`` is below 1.
    """
    if num_bins < 1:
        raise UsageError(f"num_bins is {num_bins}", fix="it must be at least 1")
    # The reply that scores higher is said to be better with probability s(|d|); it is when d > 0, and half so at 0.
    said = 1 / (1 + np.exp(-np.abs(differences)))
    right = np.where(differences == 0, 0.5, differences > 0)
    place = np.minimum(((said - 0.5) * 2 * num_bins).astype(np.int64), num_bins - 1)
    bins = []
    for number in np.unique(place).tolist():
        inside = place == number
        bins.append((float(said[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    pairs = max(len(differences), 1)
    ece = sum(abs(mean - share) * count for mean, share, count in bins) / pairs
    return Calibration(float(ece), float(np.logaddexp(0.0, -differences).sum() / pairs), bins)


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
        UsageError: there are fewer than two models.
    """
    if scores.ndim != 3 or scores.shape[1] != 2 or len(scores) < 2:
        raise UsageError(f"the scores are of shape {scores.shape}", fix="give (models, 2, pairs) of two or more models")
    signs = np.sign(scores[:, 0] - scores[:, 1])
    first, second = np.triu_indices(len(scores), 1)
    flat = scores.reshape(len(scores), -1)
    spread = flat.std(1, keepdims=True)
    scaled = (flat - flat.mean(1, keepdims=True)) / np.where(spread == 0, 1.0, spread)
    return {
        "disagreement": float((signs[first] * signs[second] < 0).mean()),
        "std": float(scaled.std(0).mean()),
    }


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
