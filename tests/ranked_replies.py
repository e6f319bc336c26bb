"""Feedback batches made of numbers: replies with the log-probabilities of their tokens, for tests of objectives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import feedback_batches
import torch
from torch import Tensor

from alignite.types import FeedbackBatch, Objective, ReplyRole


@dataclass(frozen=True)
class Reply:
    """``logps`` and ``reference``: of each token, in nats. ``ids``: its tokens; by default 10, 11, ..."""

    logps: tuple[float, ...]
    score: float = math.nan
    role: ReplyRole = ReplyRole.REPLY
    reference: tuple[float, ...] | None = None
    ids: tuple[int, ...] | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(range(10, 10 + len(self.logps))) if self.ids is None else self.ids


Record = Sequence[Reply]


def pair(chosen: Reply, rejected: Reply) -> Record:
    return (
        Reply(chosen.logps, chosen.score, ReplyRole.CHOSEN, chosen.reference, chosen.ids),
        Reply(rejected.logps, rejected.score, ReplyRole.REJECTED, rejected.reference, rejected.ids),
    )


def reply(total: float, length: int = 1, score: float = math.nan) -> Reply:
    """A reply whose tokens share a sum of log-probabilities."""
    return Reply((total / length,) * length, score)


def batch_of(records: Sequence[Record], prompts: Sequence[Sequence[int]] | None = None) -> FeedbackBatch:
    """The records as the loop's source lays them out: a prompt, 3 tokens by default, then what continues it."""
    as_made = [tuple(feedback_batches.Reply(role=r.role, score=r.score, ids=r.tokens) for r in one) for one in records]
    prompts = prompts or [(1, 2, 3)] * len(records)
    made = [feedback_batches.Record(one, tuple(prompt)) for one, prompt in zip(as_made, prompts, strict=True)]
    return feedback_batches.make_batch(made)


def columns_of(records: Sequence[Record]) -> dict[str, Tensor]:
    """float64 columns; ``policy.logp`` is a leaf with a gradient, and those over the vocabulary are made of it."""
    flat = [one for record in records for one in record]
    logp = torch.tensor([value for one in flat for value in one.logps], dtype=torch.float64, requires_grad=True)
    known = [value for one in flat for value in one.reference or one.logps]
    reference = torch.tensor(known, dtype=torch.float64)
    return {
        "policy.logp": logp,
        "policy.kl": (logp - reference).square(),
        "policy.forward_kl": 2 * (logp - reference).square(),
        "policy.graphed_entropy": 3 + logp / 4,
        "policy.mean_logp": 2 * logp - 5,
        "policy.entropy": torch.ones_like(logp).detach(),
        "reference.logp": reference,
    }


def update(objective: Objective, parts: Sequence[Sequence[Record]]) -> tuple[float, list[float]]:
    """The loss of an update of micro-batches, each some records, and its gradient by each token's log-probability.

    This is what the training loop does: the pre-pass, the counts over the whole update, then the terms.
    """
    columns = [columns_of(part) for part in parts]
    loss, _, _ = feedback_batches.summed(objective, [batch_of(part) for part in parts], columns)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient: list[float] = []
    for mine in columns:
        logp = mine["policy.logp"]
        gradient += [0.0] * logp.numel() if logp.grad is None else logp.grad.tolist()
    return float(loss.detach()), gradient


def value(objective: Objective, records: Sequence[Record]) -> float:
    return update(objective, [records])[0]


def terms(objective: Objective, records: Sequence[Record]) -> Mapping[str, float]:
    """Each term's sum, before its weight and its count."""
    found = objective.loss(columns_of(records), batch_of(records)).terms
    return {name: float(term.sum.detach()) for name, term in found.items()}
