"""What objectives over replies share: sums over a reply's tokens, pairs of a record, and the metrics of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.types import IGNORE, FeedbackBatch, ReplyRole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from alignite.types import Objective


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


def sequence_loss(objective: Objective, columns: Mapping[str, Tensor], batch: Any) -> Tensor:
    """The loss of a batch that is an update of its own, a scalar with a graph, for a loop that is not alignite's.

    Each term's sum is divided by its count over the batch, as alignite's loop divides it by its count over the
    update; with several batches to a step, sum the counts first instead. Columns come from
    :func:`alignite.models.columns.compute_columns`; an objective with a pre-pass takes the batch that
    :func:`alignite.models.columns.prepass` gives.
    """
    terms = objective.loss(columns, batch).terms
    parts = [term.sum * (term.weight / max(term.count, 1.0)) for term in terms.values()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
