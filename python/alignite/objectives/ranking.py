"""What objectives that rank a record's replies share: the best reply, and scores with defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alignite.objectives.pieces import preference_pairs, record_weights
from alignite.types import FeedbackBatch, ReplyRole

if TYPE_CHECKING:
    from numpy.typing import NDArray

POLICY = frozenset({"policy.logp", "policy.entropy"})
REFERENCE = frozenset({"reference.logp"})


def ratings(batch: FeedbackBatch) -> NDArray[np.float64]:
    """What each reply is worth, (replies,); NaN where nobody said.

    A chosen reply is worth its margin, 1 without one, a rejected reply 0.
    """
    given = batch.scores.astype(np.float64)
    chosen = np.where(np.isnan(given), 1.0, given)
    found = np.where(batch.roles == ReplyRole.CHOSEN, chosen, given)
    return np.where(batch.roles == ReplyRole.REJECTED, 0.0, found)


def best_shares(batch: FeedbackBatch) -> NDArray[np.float64]:
    """(replies,): the record's weight, 1 by default, for its best reply, 0 for others; replies that tie share it.

    Sharing keeps a loss the same in whichever order the replies stand. Without any score all replies tie.
    """
    worth = np.where(np.isnan(batch.scores), -np.inf, batch.scores.astype(np.float64))
    worth = np.where(batch.roles == ReplyRole.CHOSEN, np.inf, worth)
    worth = np.where(batch.roles == ReplyRole.REJECTED, -np.inf, worth)
    top = np.full(batch.num_records, -np.inf)
    np.maximum.at(top, batch.records, worth)
    best = worth == top[batch.records]
    ties = np.bincount(batch.records, best, batch.num_records)
    return np.asarray(best * (record_weights(batch) / ties)[batch.records])


def paired_best(batch: FeedbackBatch) -> NDArray[np.float64]:
    """The same in records that have a pair; 0 in others, which losses over pairs leave alone."""
    paired = np.isin(batch.records, preference_pairs(batch).records)
    return np.where(paired, best_shares(batch), 0.0)
