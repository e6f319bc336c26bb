"""Several reward models as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.errors import NumericsError, UsageError
from alignite.types import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMBINATIONS = ("mean", "weighted", "min", "product", "lexicographic", "threshold")


def checked_scores(
    model: Scorer | Callable[..., Any], prompts: Sequence[Any], completions: Sequence[Any]
) -> NDArray[np.float64]:
    """What a scorer says, float64 (replies, heads), if it is a finite number a reply and head.

    Args:
        model: anybody's scorer, or a plain function of prompts and completions.

    Raises:
        UsageError: it gives another number of scores, or something that is no number. NumericsError: a score is not
            finite. Both name the pair. And what the model raises.
    """
    score: Callable[..., Any] = model.score if hasattr(model, "score") else model
    given = score(prompts, completions)
    try:
        scores = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        where, shown = _no_number(given)
        raise UsageError(
            f"a score is {shown}, not a number", where=where, fix="give a scorer that returns a number a reply"
        ) from error
    if scores.ndim not in (1, 2) or len(scores) != len(completions) or scores.shape[1:] == (0,):
        raise UsageError(
            f"the model gives scores of shape {scores.shape} for {len(completions)} replies",
            fix="give a scorer that returns a number a reply, or one a reply and head",
        )
    wrong = np.flatnonzero(~np.isfinite(scores).reshape(len(scores), -1).all(1))
    if len(wrong):
        raise NumericsError(
            f"the score of a reply is {scores[wrong[0]].tolist()}",
            where=f"pair {int(wrong[0])}",
            fix="check the reward model",
        )
    return scores.reshape(len(scores), -1)


def _no_number(given: Any) -> tuple[str | None, str]:
    """Where the first of some scores is that is no number, and how it looks."""
    for number, score in enumerate(given if isinstance(given, Sequence) and not isinstance(given, str) else ()):
        try:
            np.asarray(score, dtype=np.float64)
        except (TypeError, ValueError):
            return f"pair {number}", repr(score)[:60]
    return None, repr(given)[:60]


def combine_scores(
    scores: NDArray[np.float64],
    how: str = "mean",
    *,
    weights: Sequence[float] | None = None,
    tolerance: float = 0.0,
    threshold: float = 0.15,
    is_safety: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """One score a reply from those of several models.

    Put them on one scale first (:meth:`alignite.scoring.reward.RewardModel.normalize`).

    - ``mean``; ``weighted``, the sum of weight times score; ``min``, the model that likes it least;
    - ``product``, of scores that are at least 0, such as probabilities;
    - ``lexicographic``: by the first model's scores, where these differ by no more than ``tolerance`` by the second's,
      and so on; the score is the reply's place in that order, from 0, ties sharing one. It orders the replies of one
      call, and means nothing beyond. So that the order does not depend on which replies are compared, scores are first
      rounded down to multiples of the tolerance;
    - ``threshold``: LLaMA-2's switch (arXiv 2307.09288, section 3.2.3): the first model is safety, the second
      helpfulness; R = R_s where the prompt is about safety or R_s < threshold, else R_h. LLaMA-2's threshold 0.15 is of
      a safety score between 0 and 1; it then takes the logit of R and whitens it, which is left to the caller.

    Args:
        scores: float64 (models, replies).
        how: one of :data:`COMBINATIONS`.
        weights: one a model, for ``weighted``.
        is_safety: bool (replies,), for ``threshold``; default: no prompt is.

    Returns:
        float64 (replies,).

    Raises:
        UsageError: no such combination; weights, models or signs that do not fit it; an option or a score that is not
            finite.
    """
    _check_options(how, weights, tolerance, threshold)
    try:
        scores = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError("the scores are not numbers", why=str(error), fix="give (models, replies)") from error
    if scores.ndim != 2 or not len(scores):
        raise UsageError(f"the scores are of shape {scores.shape}", fix="give (models, replies)")
    if not np.isfinite(scores).all():
        model, reply = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise UsageError(
            f"the score of model {model} for reply {reply} is {scores[model, reply]}", fix="leave that reply out"
        )
    if how == "weighted":
        if weights is None or len(weights) != len(scores):
            raise UsageError(f"weights are {weights!r}", fix=f"give {len(scores)} numbers, one a model")
        return np.asarray(weights, dtype=np.float64) @ scores
    if how == "product":
        if (scores < 0).any():
            raise UsageError("a score is negative", fix="multiply probabilities, or take another combination")
        return np.asarray(scores.prod(0))
    if how == "lexicographic":
        return _lexicographic(scores, tolerance)
    if how == "threshold":
        if len(scores) != 2:
            raise UsageError(f"there are {len(scores)} models", fix="give two: safety, then helpfulness")
        about = np.zeros(scores.shape[1], dtype=bool) if is_safety is None else np.asarray(is_safety)
        if about.dtype != bool and not np.isin(about, (0, 1)).all():
            raise UsageError("is_safety holds something else than truths", fix="give one truth a reply")
        about = about.astype(bool)
        if about.shape != scores.shape[1:]:
            raise UsageError(f"is_safety is of shape {about.shape}", fix="give one truth a reply")
        chosen: NDArray[np.float64] = np.where(about | (scores[0] < threshold), scores[0], scores[1])
        return chosen
    return np.asarray(scores.min(0) if how == "min" else scores.mean(0))


def _check_options(how: str, weights: Sequence[float] | None, tolerance: float, threshold: float) -> None:
    if how not in COMBINATIONS:
        raise UsageError(f"there is no combination {how!r}", fix=f"it is one of {', '.join(COMBINATIONS)}")
    if not 0.0 <= tolerance < np.inf:
        raise UsageError(f"tolerance is {tolerance}", fix="it must be finite and at least 0")
    if not np.isfinite(threshold):
        raise UsageError(f"threshold is {threshold}", fix="it must be finite")
    if weights is not None and not np.isfinite(np.asarray(weights, dtype=np.float64)).all():
        raise UsageError(f"weights are {weights!r}", fix="they must be finite")


def _lexicographic(scores: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    # The last model decides alone what all others leave open, so its scores stay as they are.
    keys = scores.copy()
    if tolerance:
        keys[:-1] = np.floor(scores[:-1] / tolerance)
    _, places = np.unique(keys.T, axis=0, return_inverse=True)
    return places.reshape(-1).astype(np.float64)


class CombinedReward:
    """Several reward models, here or behind HTTP, used as one; each tokenizes the texts by itself.

    Args:
        models: what scores; the order matters to ``lexicographic`` and ``threshold``. A model with several heads counts
            as that many models.
        how, weights, tolerance, threshold: of :func:`combine_scores`.
        is_safety: of a prompt, whether it is about safety, for ``threshold``.

    Raises:
        UsageError: no such combination, no model, or an option that is not finite.
    """

    def __init__(
        self,
        models: Sequence[Scorer | Callable[..., Any]],
        how: str = "mean",
        *,
        weights: Sequence[float] | None = None,
        tolerance: float = 0.0,
        threshold: float = 0.15,
        is_safety: Callable[[Any], bool] | None = None,
    ) -> None:
        _check_options(how, weights, tolerance, threshold)
        if not models:
            raise UsageError("there is no model to combine", fix="give one or more")
        self.models, self.how, self.is_safety = list(models), how, is_safety
        self.options: dict[str, Any] = {"weights": weights, "tolerance": tolerance, "threshold": threshold}

    def scores(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """What each model says, float64 (models, replies), a head counted as a model.

        Raises:
            UsageError, NumericsError: as :func:`checked_scores`.
        """
        return np.concatenate([checked_scores(model, prompts, completions).T for model in self.models])

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """One score a reply, float64 (replies,).

        Raises:
            UsageError, NumericsError: as :func:`combine_scores` and :func:`checked_scores`. And what the models raise.
        """
        about = None if self.is_safety is None else np.array([self.is_safety(prompt) for prompt in prompts], dtype=bool)
        return combine_scores(self.scores(prompts, completions), self.how, is_safety=about, **self.options)
