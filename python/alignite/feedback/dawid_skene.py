"""Labels from many raters, each weighed by how they confuse labels (Dawid and Skene 1979)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from alignite.errors import DataError, UsageError
from alignite.feedback.agreement import MISSING
from alignite.feedback.raters import Ratings

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FLOOR = 1e-10  # the least chance of a confusion, so that no rater's one slip rules a label out


@dataclass(frozen=True)
class DawidSkene:
    """Dawid and Skene's model, fitted.

    Args:
        posterior: float64 (items, labels), the chance of each label being the true one.
        confusion: float64 (raters, labels, labels), P(rater says b | true a) at [rater, a, b].
        prior: float64 (labels,).
        log_likelihood: of the ratings, in nats, after each step. ``converged``: whether it settled.
    """

    posterior: NDArray[np.float64]
    confusion: NDArray[np.float64]
    prior: NDArray[np.float64]
    log_likelihood: list[float]
    converged: bool


def dawid_skene(
    ratings: Ratings, *, max_iter: int = 100, tol: float = 1e-7, use_gold: bool = False, smoothing: float = 0.0
) -> DawidSkene:
    """Maximum likelihood by expectation-maximisation, begun at the shares of votes (Dawid and Skene 1979).

    Args:
        tol: it ends when the log-likelihood a rating grows by less.
        use_gold: whether items with gold answers keep them.
        smoothing: ratings that are added to each cell of each confusion matrix, against zeros of rare labels.

    Raises:
        UsageError: an option is out of range.
    """
    if max_iter < 1 or smoothing < 0 or tol < 0:
        raise UsageError(
            f"max_iter is {max_iter}, tol is {tol}, smoothing is {smoothing}",
            fix="max_iter is 1 or more, the others 0 or more",
        )
    items, raters, labels = len(ratings.items), len(ratings.raters), len(ratings.labels)
    votes = ratings.counts().astype(np.float64)
    known = np.flatnonzero(ratings.gold != MISSING) if use_gold else np.zeros(0, dtype=np.int64)
    cell = ratings.rater * labels + ratings.label

    def fixed(chances: NDArray[np.float64]) -> NDArray[np.float64]:
        chances[known] = 0.0
        chances[known, ratings.gold[known]] = 1.0
        return chances

    def maximise(posterior: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = np.empty((raters, labels, labels))
        for true in range(labels):
            weights = np.bincount(cell, posterior[ratings.item, true], raters * labels)
            found[:, true, :] = weights.reshape(raters, labels)
        found = np.maximum(found + smoothing, _FLOOR)
        return posterior.mean(axis=0), found / found.sum(axis=2, keepdims=True)

    posterior = fixed(votes / votes.sum(axis=1, keepdims=True))
    prior, confusion = maximise(posterior)
    history: list[float] = []
    converged = False
    for _ in range(max_iter):
        logs = np.log(confusion)
        joint = np.empty((items, labels))
        for true in range(labels):
            joint[:, true] = np.bincount(ratings.item, logs[:, true, :].ravel()[cell], items)
        joint += np.log(np.maximum(prior, _FLOOR))
        peak = joint.max(axis=1, keepdims=True)
        scaled = np.exp(joint - peak)
        total = scaled.sum(axis=1, keepdims=True)
        posterior = fixed(scaled / total)
        evidence = (peak + np.log(total))[:, 0]
        evidence[known] = joint[known, ratings.gold[known]]
        history.append(float(evidence.sum()))
        prior, confusion = maximise(posterior)
        if len(history) > 1 and history[-1] - history[-2] < tol * len(cell):
            converged = True
            break
    return DawidSkene(posterior, confusion, prior, history, converged)


def soft_labels(ratings: Ratings, *, method: Literal["ds", "votes"] = "ds", **options: Any) -> dict[Hashable, float]:
    """By item of pair ratings, how likely it is that its first reply is the better one: the ``p`` of reward models.

    Args:
        method: ``ds`` weighs raters by :func:`dawid_skene` (``options`` go to it), ``votes`` counts each the same.

    Raises:
        DataError: labels are no numbers between 0 and 1.
    """
    if not all(isinstance(label, int | float) and 0 <= label <= 1 for label in ratings.labels):
        raise DataError(
            "labels say nothing about pairs",
            why=f"they are {list(ratings.labels)!r:.80}",
            fix="rate with 'pair' or 'rank'",
        )
    values = np.array(ratings.labels, dtype=np.float64)
    if method == "ds":
        shares = dawid_skene(ratings, **options).posterior
    else:
        counts = ratings.counts()
        shares = counts / counts.sum(axis=1, keepdims=True)
    p = np.clip(shares @ values, 0.0, 1.0)
    return dict(zip(ratings.items, p.tolist(), strict=True))
