"""Supervised fine-tuning: the mean negative log-probability of the scored tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignite.objectives.pieces import WithoutState
from alignite.types import IGNORE, LossOutput, SftBatch, Term

if TYPE_CHECKING:
    from torch import Tensor


class SFTObjective(WithoutState):
    """L = -sum_t w_t log p(y_t | y_<t) / sum_t w_t over the scored tokens t of the whole update.

    The weights w_t are the messages' own, 1 unless the data says otherwise.

    Source: InstructGPT (arXiv 2203.02155, section 3.5); the sum of weights is global over micro-batches and ranks, so
    that the loss does not depend on how an update is split.
    """

    columns = frozenset({"policy.logp", "policy.entropy", "policy.is_top1"})

    def counts(self, batch: SftBatch) -> dict[str, float]:
        """Scored tokens by their weights, from the batch alone."""
        scored = batch.labels != IGNORE
        return {"sft": float(scored.sum() if batch.weights is None else batch.weights[scored].double().sum())}

    def loss(self, columns: Mapping[str, Tensor], batch: SftBatch) -> LossOutput:
        """One term, ``sft``; metrics ``mean_token_accuracy`` and ``entropy`` (nats)."""
        logp = columns["policy.logp"]
        count = float(logp.numel())
        metrics = {
            "mean_token_accuracy": (float(columns["policy.is_top1"].sum()), count),
            "entropy": (float(columns["policy.entropy"].sum()), count),
        }
        if batch.weights is not None:
            weights = batch.weights[batch.labels != IGNORE]
            return LossOutput({"sft": Term(-(logp * weights).sum(), self.counts(batch)["sft"])}, metrics)
        return LossOutput({"sft": Term(-logp.sum(), count)}, metrics)
