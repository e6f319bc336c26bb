"""FIGA: from an answer and its revision, learn only the tokens in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import ConfigError, DataError
from alignite.objectives.odd_rows import MARGIN_UNREAD, P_UNREAD
from alignite.objectives.pieces import WithoutState, as_tensor, preference_pairs, record_weights
from alignite.types import IGNORE, FeedbackBatch, LossOutput, ReplyRole, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

WEIGHTS = "figa.weights"
"""The column that the pre-pass gives: each scored token's weight, (scored,)."""


def token_edits(original: Sequence[int], revised: Sequence[int]) -> tuple[list[int], list[int]]:
    """The places of ``original`` that a shortest edit script deletes or replaces, and of ``revised`` that it inserts
    or puts in their place.

    A script is a least number of insertions, deletions and replacements of single tokens. Of several such, the one
    found from the ends keeps a token where it can, then replaces, then deletes or inserts on the longer side; so the
    two answers swap when the arguments do.

    Source: Levenshtein distance by Wagner and Fischer (1974), in time and memory O(len(original) * len(revised)).
    """
    a, b = np.asarray(original, np.int64), np.asarray(revised, np.int64)
    cost = np.empty((len(a) + 1, len(b) + 1), np.int64)
    steps = np.arange(len(b) + 1)
    cost[0] = steps
    for i, token in enumerate(a, 1):
        cost[i, 0] = i
        cost[i, 1:] = np.minimum(cost[i - 1, 1:] + 1, cost[i - 1, :-1] + (b != token))
        cost[i] = np.minimum.accumulate(cost[i] - steps) + steps  # insertions, from the left
    removed, added = [], []
    i, j = len(a), len(b)
    while i or j:
        if i and j and a[i - 1] == b[j - 1]:
            i, j = i - 1, j - 1
        elif i and j and cost[i, j] == cost[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
            removed.append(i)
            added.append(j)
        elif not j or (i and cost[i, j] == cost[i - 1, j] + 1 and not _insert_first(cost, a, b, i, j)):
            i -= 1
            removed.append(i)
        else:
            j -= 1
            added.append(j)
    return removed[::-1], added[::-1]


def _insert_first(cost: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64], i: int, j: int) -> bool:
    """Whether to insert where to delete would be as good: a choice that turns round when the sides are swapped."""
    if cost[i, j] != cost[i, j - 1] + 1:
        return False
    return i < j if i != j else bool(a[i - 1] < b[j - 1])


@dataclass(frozen=True, kw_only=True)
class FIGAObjective(WithoutState):
    """L = sum_t w_t * (-log pi(y_t | x, y_<t)) / #(w_t != 0), over the tokens of originals and of their revisions.

    w_t = 1 for tokens of the revision (the chosen reply) that the edit script inserts or puts in place of others, and
    for its last token, which ends it; w_t = negative_weight for tokens of the original (the rejected reply) that it
    deletes or replaces, but only while lower_threshold <= -log pi(y_t) <= threshold: what the model would not say need
    not be unlearnt; 0 for all others. A pre-pass finds the weights of the whole update, under the policy as it is.

    Args:
        negative_weight: at most 0.
        threshold: nats; 0.6 is a probability of 0.549.
        lower_threshold: nats. The reference's code keeps tokens from 0.6 to 1 nats: (0.6, 1.0) does the same.

    Source: FIGA (arXiv 2311.04072, section 4.2); the reference is RUCAIBox/FIGA.

    Raises:
        ConfigError: an option is out of its range.
    """

    negative_weight: float = -0.5
    threshold: float = 0.6
    lower_threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("threshold", self.threshold, 0, True)
        check_bound("lower_threshold", self.lower_threshold, 0, True)
        if self.lower_threshold > self.threshold:
            raise ConfigError(
                f"lower_threshold {self.lower_threshold} is above threshold {self.threshold}",
                fix="give a lower one, or leave it out",
            )
        if self.negative_weight > 0:
            raise ConfigError(f"negative_weight is {self.negative_weight}", fix="it must be at most 0, such as -0.5")

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**P_UNREAD, **MARGIN_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "policy.entropy"})

    @property
    def prepass_columns(self) -> frozenset[str]:
        return frozenset({"policy.logp"})

    def prepass(
        self,
        columns: Sequence[Mapping[str, Tensor]],
        batches: Sequence[FeedbackBatch],
        total: Callable[[dict[str, float]], dict[str, float]],
    ) -> list[dict[str, Tensor]]:
        """``figa.weights`` of each micro-batch.

        Raises:
            DataError: a record is not an original and its revision.
        """
        return [
            {WEIGHTS: self._weights(found["policy.logp"], batch)} for found, batch in zip(columns, batches, strict=True)
        ]

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Tokens whose weight is not 0, from the pre-pass; each by its record's weight."""
        return {"figa": float(_of_records(batch)[(batch.given[WEIGHTS] != 0).cpu().numpy()].sum())}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """One term, ``figa``; metrics ``positive_tokens`` and ``negative_tokens``, the shares of scored tokens with
        such a weight, and ``entropy`` (nats)."""
        weights, logp = batch.given[WEIGHTS], columns["policy.logp"]
        scored = float(logp.numel())
        metrics = {
            "positive_tokens": (float((weights > 0).sum()), scored),
            "negative_tokens": (float((weights < 0).sum()), scored),
            "entropy": (float(columns["policy.entropy"].sum()), scored),
        }
        weights = weights * as_tensor(_of_records(batch), logp)
        return LossOutput({"figa": Term(-(weights * logp).sum(), self.counts(batch)["figa"])}, metrics)

    def _weights(self, logp: Tensor, batch: FeedbackBatch) -> Tensor:
        other = ~np.isin(batch.roles, (ReplyRole.CHOSEN, ReplyRole.REJECTED))
        if other.any():
            raise DataError(
                "a record is not a pair of an original and its revision",
                where=batch.place(int(batch.records[other][0])),
                fix="give rows of prompt, chosen (the revision) and rejected (the original)",
            )
        tokens = batch.labels[batch.labels != IGNORE].cpu().numpy()
        reply_of = batch.reply_of.cpu().numpy()
        cost = -logp.detach().double().cpu().numpy()
        known = (self.lower_threshold <= cost) & (cost <= self.threshold)
        weights = np.zeros(len(tokens))
        pairs = preference_pairs(batch)
        for chosen, rejected in zip(pairs.chosen, pairs.rejected, strict=True):
            revised, original = np.flatnonzero(reply_of == chosen), np.flatnonzero(reply_of == rejected)
            removed, added = token_edits(tokens[original].tolist(), tokens[revised].tolist())
            weights[revised[[*added, -1]]] = 1.0
            gone = original[removed]
            weights[gone[known[gone]]] = self.negative_weight
        return as_tensor(weights, logp)


def _of_records(batch: FeedbackBatch) -> NDArray[np.float64]:
    """The weight of each scored token's record, (scored,)."""
    return np.asarray(record_weights(batch)[batch.records[batch.reply_of.cpu().numpy()]])
