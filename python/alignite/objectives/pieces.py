"""What objectives over replies share: sums over a reply's tokens, pairs of a record, and the metrics of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignite.types import IGNORE, FeedbackBatch, ReplyRole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def reply_sums(values: Tensor, batch: FeedbackBatch) -> Tensor:
    """The sum of (scored,) values over each reply's tokens, (replies,), with their graph.

    A token's ``weight`` counts it more or less, where the batch has weights.
    """
    if batch.weights is not None:
        values = values * batch.weights[batch.labels != IGNORE]
    return values.new_zeros(batch.num_replies).index_add(0, batch.reply_of, values)


def reply_lengths(batch: FeedbackBatch) -> Tensor:
    """Scored tokens of each reply, (replies,) float32; their weights' sum, where the batch has weights."""
    import torch

    return reply_sums(torch.ones(len(batch.reply_of), device=batch.reply_of.device), batch)


@dataclass(frozen=True)
class Pairs:
    """Two replies of a record, the first of which is better.

    Args:
        chosen, rejected: int64 (pairs,), replies of the batch.
        records: int64 (pairs,), their record.
    """

    chosen: NDArray[np.int64]
    rejected: NDArray[np.int64]
    records: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)

    def labels(self, batch: FeedbackBatch) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(margin, p) of each pair, float32 (pairs,): what a preference says of itself, else 0 and 1."""
        paired = batch.roles[self.chosen] == ReplyRole.CHOSEN
        margin, p = batch.scores[self.chosen], batch.scores[self.rejected]
        return (
            np.where(paired & ~np.isnan(margin), margin, 0.0).astype(np.float32),
            np.where(paired & ~np.isnan(p), p, 1.0).astype(np.float32),
        )


def preference_pairs(batch: FeedbackBatch) -> Pairs:
    """The chosen and the rejected reply of each pair; of a ranking every two replies whose scores differ.

    Ties give no pair.
    """
    paired = np.isin(batch.roles, (ReplyRole.CHOSEN, ReplyRole.REJECTED))
    chosen = [np.flatnonzero(batch.roles == ReplyRole.CHOSEN)]
    rejected = [np.flatnonzero(batch.roles == ReplyRole.REJECTED)]
    for record in np.unique(batch.records[~paired]).tolist():
        members = np.flatnonzero((batch.records == record) & ~paired)
        scores = batch.scores[members]
        better, worse = np.nonzero(scores[:, None] > scores[None, :])
        chosen.append(members[better])
        rejected.append(members[worse])
    first, second = np.concatenate(chosen), np.concatenate(rejected)
    order = np.argsort(batch.records[first], kind="stable")
    first, second = first[order], second[order]
    return Pairs(first, second, batch.records[first])


def pair_shares(pairs: Pairs) -> NDArray[np.float64]:
    """What each pair counts, float64 (pairs,): the pairs of a record sum to 1."""
    _, index, count = np.unique(pairs.records, return_inverse=True, return_counts=True)
    shares: NDArray[np.float64] = 1.0 / count[index]
    return shares
