"""What objectives share: options, sums over a reply's tokens, pairs of a record, and the metrics of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.config.options import check_finite
from alignite.errors import ConfigError
from alignite.types import IGNORE, FeedbackBatch, ReplyRole, divisor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from alignite.types import Objective


class WithoutState:
    """An objective with nothing to keep in a checkpoint; of a dataclass every number must be finite."""

    def __post_init__(self) -> None:
        check_finite(self)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        """What becomes of rows that are odd, by the words of :mod:`alignite.objectives.odd_rows`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices of an option."""
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}", fix=f"it is one of {', '.join(choices)}")


def as_tensor(values: NDArray[Any], like: Tensor) -> Tensor:
    """A numpy array on the device of ``like``: int64 stays so, anything else takes its dtype."""
    import torch

    kept = torch.int64 if values.dtype == np.int64 else like.dtype
    return torch.as_tensor(values, dtype=kept, device=like.device)


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


def positive_lengths(batch: FeedbackBatch, like: Tensor) -> Tensor:
    """What means over each reply's tokens divide by, (replies,): its length, 1 where that is 0.

    A length of weights may well be below 1.
    """
    lengths = reply_lengths(batch).to(like)
    return lengths.where(lengths > 0, 1.0)


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


def record_weights(batch: FeedbackBatch) -> NDArray[np.float64]:
    """How much each record counts, float64 (records,)."""
    known = batch.record_weights
    return np.ones(batch.num_records) if known is None else known.astype(np.float64)


def record_count(batch: FeedbackBatch) -> float:
    """Records by their weights: what losses over all records are divided by."""
    return float(record_weights(batch).sum())


def pair_shares(pairs: Pairs, batch: FeedbackBatch) -> NDArray[np.float64]:
    """What each pair counts, float64 (pairs,): the pairs of a record sum to its weight."""
    _, index, count = np.unique(pairs.records, return_inverse=True, return_counts=True)
    shares: NDArray[np.float64] = record_weights(batch)[pairs.records] / count[index]
    return shares


def pair_count(batch: FeedbackBatch) -> float:
    """Records with a pair, by their weights: what losses over pairs are divided by."""
    return float(record_weights(batch)[np.unique(preference_pairs(batch).records)].sum())


def gaps(values: Tensor, pairs: Pairs) -> Tensor:
    """The better reply's value less the worse one's, (pairs,)."""
    return values[as_tensor(pairs.chosen, values)] - values[as_tensor(pairs.rejected, values)]


@dataclass(frozen=True)
class ReplyPairs:
    """What losses over pairs start from.

    Args:
        pairs: of the batch. ``shares``: (pairs,), what each counts; a record's sum to its weight.
        sums: the log-probability of each reply, (replies,), with a graph. ``means``: the same a scored token.
    """

    pairs: Pairs
    shares: Tensor
    sums: Tensor
    means: Tensor

    @classmethod
    def of(cls, logp: Tensor, batch: FeedbackBatch) -> ReplyPairs:
        """From ``policy.logp``, (scored,)."""
        pairs = preference_pairs(batch)
        sums = reply_sums(logp, batch)
        return cls(pairs, as_tensor(pair_shares(pairs, batch), sums), sums, sums / positive_lengths(batch, sums))

    def difference(self, values: Tensor) -> Tensor:
        """Of (replies,) values, the chosen reply's less the rejected one's, (pairs,)."""
        return gaps(values, self.pairs)


def pair_metrics(
    rewards: Tensor, pairs: Pairs, columns: Mapping[str, Tensor], batch: FeedbackBatch
) -> dict[str, tuple[float, float]]:
    """Metrics of pairs by TRL's names, each (sum, count).

    ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` and ``rewards/accuracies`` (equal is wrong) are of
    ``rewards``, (replies,), by which the method ranks; ``logps/chosen`` and ``logps/rejected`` (nats) of whole replies,
    ``logits/chosen`` and ``logits/rejected`` of their tokens where ``policy.mean_logit`` is among the columns, all over
    strict pairs; ``entropy`` (nats) is over scored tokens.
    """
    import torch

    logps = reply_sums(columns["policy.logp"], batch).detach().double()
    rewards = rewards.detach().double()
    count, margins = float(len(pairs)), gaps(rewards, pairs)
    found = {
        "rewards/margins": (float(margins.sum()), count),
        "rewards/accuracies": (float((margins > 0).sum()), count),
        "entropy": (float(columns["policy.entropy"].sum()), float(columns["policy.entropy"].numel())),
    }
    logits = columns.get("policy.mean_logit")
    for name, replies in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        side = as_tensor(replies, rewards)
        found[f"rewards/{name}"] = (float(rewards[side].sum()), count)
        found[f"logps/{name}"] = (float(logps[side].sum()), count)
        if logits is not None:
            tokens = torch.isin(batch.reply_of, side)
            found[f"logits/{name}"] = (float(logits[tokens].sum()), float(tokens.sum()))
    return found


def sequence_loss(objective: Objective, columns: Mapping[str, Tensor], batch: Any) -> Tensor:
    """The loss of a batch that is an update of its own, a scalar with a graph, for a loop that is not alignite's.

    Each term's sum is divided by its count over the batch, as alignite's loop divides it by its count over the
    update; with several batches to a step, sum the counts first instead. Columns come from
    :func:`alignite.models.columns.compute_columns`; an objective with a pre-pass takes the batch that
    :func:`alignite.models.columns.prepass` gives.
    """
    terms = objective.loss(columns, batch).terms
    parts = [term.sum * (term.weight / divisor(term.count)) for term in terms.values()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
