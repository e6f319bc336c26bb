"""Quark: sort replies into quantiles of reward, name the quantile in the prompt, and learn to follow the name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import UsageError
from alignite.objectives.odd_rows import LABELLED_BAD
from alignite.objectives.pieces import WithoutState
from alignite.objectives.ranking import POLICY, REFERENCE
from alignite.types import IGNORE, FeedbackBatch, LossOutput, SftBatch, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def quantiles(rewards: Sequence[float], num_quantiles: int) -> NDArray[np.int64]:
    """The quantile of each of a pool's rewards, (rewards,): 0 holds the best.

    Sizes differ by at most 1, the better quantiles being the larger; equal rewards stay in the pool's order.

    Raises:
        UsageError: a reward is NaN, or there are fewer rewards than quantiles.
    """
    values = np.asarray(rewards, np.float64)
    if np.isnan(values).any():
        raise UsageError(f"reward {int(np.flatnonzero(np.isnan(values))[0])} is NaN", fix="leave such replies out")
    if not 1 <= num_quantiles <= len(values):
        raise UsageError(f"{num_quantiles} quantiles of {len(values)} rewards", fix="give 1 to as many as rewards")
    found = np.empty(len(values), np.int64)
    for quantile, part in enumerate(np.array_split(np.argsort(-values, kind="stable"), num_quantiles)):
        found[part] = quantile
    return found


def quark_rows(
    rows: Sequence[Mapping[str, Any]], num_quantiles: int = 5, marker: str = "<rwd_{quantile}>"
) -> list[dict[str, Any]]:
    """Rows of prompt, completion and label, whose prompt begins with the marker of the completion's quantile.

    Args:
        rows: ranked rows (prompt, completions, scores), whose replies form one pool. A prompt is a text, or messages;
            then the marker begins the last user message.
        num_quantiles: K. Generate under the marker of quantile 0.
        marker: text that names a quantile; new tokens of the tokenizer or plain words.

    Raises:
        UsageError: as :func:`quantiles`; or a prompt of messages has no user message.
    """
    pool = [
        (row["prompt"], text, score)
        for row in rows
        for text, score in zip(row["completions"], row["scores"], strict=True)
    ]
    places = quantiles([score for _, _, score in pool], num_quantiles)
    return [
        # Every reply is imitated, under its marker; the label says so to the format.
        {"prompt": with_marker(prompt, marker.format(quantile=place)), "completion": text, "label": True}
        for (prompt, text, _), place in zip(pool, places.tolist(), strict=True)
    ]


def with_marker(prompt: Any, marker: str) -> Any:
    """The prompt with a marker before its text, or before the text of its last user message."""
    if isinstance(prompt, str):
        return f"{marker}{prompt}"
    messages = [dict(message) for message in prompt]
    for message in reversed(messages):
        if message["role"] == "user":
            message["content"] = f"{marker}{message['content']}"
            return messages
    raise UsageError("a prompt has no user message to put a marker in", fix="begin the prompt with a user message")


@dataclass(frozen=True, kw_only=True)
class QuarkObjective(WithoutState):
    """L = mean over scored tokens of (-log pi(y_t | k, x, y_<t) + kl_coef * (u_t - 1 - log u_t)).

    u_t = ref(y_t) / pi(y_t), and k is the reward marker in the prompt. The second part estimates KL(pi || ref) from
    the token that stands there (the k3 estimator), where the paper takes the whole vocabulary; it is never negative, 0
    where the two agree, and unbiased for replies that the policy sampled. The paper's entropy bonus is not offered:
    alignite's entropy column has no gradient.

    Args:
        kl_coef: 0 needs no reference model.

    Source: Quark (arXiv 2205.13636, equation 3); k3 is of Schulman, "Approximating KL divergence" (2020).

    Raises:
        ConfigError: an option is out of its range.
    """

    kl_coef: float = 0.05

    def __post_init__(self) -> None:
        check_bound("kl_coef", self.kl_coef, 0, True)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {LABELLED_BAD: "this method does not read labels and imitates it, under the marker in its prompt"}

    @property
    def columns(self) -> frozenset[str]:
        return POLICY | REFERENCE if self.kl_coef else POLICY

    def counts(self, batch: SftBatch | FeedbackBatch) -> dict[str, float]:
        """Scored tokens by their weights, for each term."""
        scored = batch.labels != IGNORE
        count = float(scored.sum() if batch.weights is None else batch.weights[scored].double().sum())
        return {"nll": count, "kl": count} if self.kl_coef else {"nll": count}

    def loss(self, columns: Mapping[str, Tensor], batch: SftBatch | FeedbackBatch) -> LossOutput:
        """Terms ``nll`` and ``kl``; metrics ``kl_k3`` (nats a token) and ``entropy`` (nats)."""
        logp, counts = columns["policy.logp"], self.counts(batch)
        weights = logp.new_ones(()) if batch.weights is None else batch.weights[batch.labels != IGNORE]
        terms = {"nll": Term(-(logp * weights).sum(), counts["nll"])}
        metrics = {"entropy": (float(columns["policy.entropy"].sum()), float(logp.numel()))}
        if self.kl_coef:
            ratio = columns["reference.logp"] - logp
            k3 = ratio.expm1() - ratio
            terms["kl"] = Term((k3 * weights).sum(), counts["kl"], self.kl_coef)
            metrics["kl_k3"] = (float(k3.detach().sum()), float(logp.numel()))
        return LossOutput(terms, metrics)
