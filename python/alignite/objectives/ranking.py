"""What objectives that rank a record's replies share: the best reply, scores with defaults, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.errors import ConfigError
from alignite.objectives.pieces import Pairs, preference_pairs, reply_sums
from alignite.types import FeedbackBatch, ReplyRole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

POLICY = frozenset({"policy.logp", "policy.entropy"})
REFERENCE = frozenset({"reference.logp"})


class WithoutState:
    """An objective with nothing to keep in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices of an option."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}", fix=f"it is one of {', '.join(choices)}")


def ratings(batch: FeedbackBatch) -> NDArray[np.float64]:
    """What each reply is worth, (replies,); NaN where nobody said.

    A chosen reply is worth its margin, 1 without one, a rejected reply 0.
    """
    given = batch.scores.astype(np.float64)
    chosen = np.where(np.isnan(given), 1.0, given)
    found = np.where(batch.roles == ReplyRole.CHOSEN, chosen, given)
    return np.where(batch.roles == ReplyRole.REJECTED, 0.0, found)


def best_shares(batch: FeedbackBatch) -> NDArray[np.float64]:
    """(replies,): 1 for the best reply of a record, 0 for others; replies that tie share the 1.

    Sharing keeps a loss the same in whichever order the replies stand. Without any score all replies tie.
    """
    worth = np.where(np.isnan(batch.scores), -np.inf, batch.scores.astype(np.float64))
    worth = np.where(batch.roles == ReplyRole.CHOSEN, np.inf, worth)
    worth = np.where(batch.roles == ReplyRole.REJECTED, -np.inf, worth)
    top = np.full(batch.num_records, -np.inf)
    np.maximum.at(top, batch.records, worth)
    best = worth == top[batch.records]
    ties = np.bincount(batch.records, best, batch.num_records)
    return np.asarray(best / ties[batch.records])


def paired_best(batch: FeedbackBatch) -> NDArray[np.float64]:
    """The same in records that have a pair; 0 in others, which losses over pairs leave alone."""
    paired = np.isin(batch.records, preference_pairs(batch).records)
    return np.where(paired, best_shares(batch), 0.0)


def as_tensor(values: NDArray[Any], like: Tensor) -> Tensor:
    """A numpy array on the device of ``like``: int64 stays so, anything else takes its dtype."""
    import torch

    kept = torch.int64 if values.dtype == np.int64 else like.dtype
    return torch.as_tensor(values, dtype=kept, device=like.device)


def gaps(values: Tensor, pairs: Pairs) -> Tensor:
    """The better reply's value less the worse one's, (pairs,)."""
    return values[as_tensor(pairs.chosen, values)] - values[as_tensor(pairs.rejected, values)]


def ranking_metrics(
    values: Tensor, pairs: Pairs, columns: Mapping[str, Tensor], batch: FeedbackBatch
) -> dict[str, tuple[float, float]]:
    """Metrics of pairs under ``values``, (replies,), by which the method ranks, and of log-probabilities.

    ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` and ``rewards/accuracies`` (equal is wrong) are of
    ``values``, ``logps/chosen`` and ``logps/rejected`` (nats) of whole replies, all over strict pairs; ``entropy``
    (nats) is over scored tokens.
    """
    logps = reply_sums(columns["policy.logp"], batch).detach().double()
    values = values.detach().double()
    chosen, rejected = as_tensor(pairs.chosen, logps), as_tensor(pairs.rejected, logps)
    count = float(len(pairs))
    won, lost = values[chosen], values[rejected]
    return {
        "rewards/chosen": (float(won.sum()), count),
        "rewards/rejected": (float(lost.sum()), count),
        "rewards/margins": (float((won - lost).sum()), count),
        "rewards/accuracies": (float((won > lost).sum()), count),
        "logps/chosen": (float(logps[chosen].sum()), count),
        "logps/rejected": (float(logps[rejected].sum()), count),
        "entropy": (float(columns["policy.entropy"].sum()), float(columns["policy.entropy"].numel())),
    }
