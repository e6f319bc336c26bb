"""Batches of replies and their columns, made of numbers, for tests of objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from alignite.types import IGNORE, NO_PARENT, FeedbackBatch, LossOutput, Objective, PrepassObjective, ReplyRole, divisor

COLUMNS = ("policy.logp", "reference.logp", "policy.entropy", "policy.is_top1", "policy.mean_logit")
NAN = float("nan")


@dataclass(frozen=True)
class Reply:
    """A reply of so many tokens, or of these."""

    length: int = 3
    role: ReplyRole = ReplyRole.REPLY
    score: float = NAN
    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """Replies, and the prompt's tokens or how many it has."""

    replies: tuple[Reply, ...] = ()
    prompt: int | tuple[int, ...] = 4
    weight: float = 1.0


def pair(chosen: int = 3, rejected: int = 4, margin: float = NAN, p: float = NAN, prompt: int = 4) -> Record:
    """A preference, by its replies' lengths."""
    return Record((Reply(chosen, ReplyRole.CHOSEN, margin), Reply(rejected, ReplyRole.REJECTED, p)), prompt)


def ranking(scores: Sequence[float], lengths: Sequence[int] = (), prompt: int = 4) -> Record:
    return Record(
        tuple(Reply(n, ReplyRole.REPLY, s) for s, n in zip(scores, lengths or [3] * len(scores), strict=True)), prompt
    )


def make_batch(records: Sequence[Record], seed: int = 0, partner: FeedbackBatch | None = None) -> FeedbackBatch:
    """Each record's prompt once, then its replies as segments that continue it."""
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    weights: list[float] = []
    segments: list[tuple[int, int, int]] = []
    about: list[tuple[int, int, int, float]] = []
    reply_of: list[int] = []
    for number, record in enumerate(records):
        parent = len(segments)
        prompt = rng.integers(3, 40, record.prompt).tolist() if isinstance(record.prompt, int) else record.prompt
        segments.append((len(ids), len(prompt), NO_PARENT))
        ids += prompt
        labels += [IGNORE] * len(prompt)
        weights += [1.0] * len(prompt)
        positions += range(len(prompt))
        for reply in record.replies:
            tokens = list(reply.ids) or rng.integers(3, 40, reply.length).tolist()
            reply_of += [len(about)] * len(tokens)
            about.append((len(segments), number, int(reply.role), reply.score))
            segments.append((len(ids), len(tokens), parent))
            ids += tokens
            labels += tokens
            weights += reply.weights or [1.0] * len(tokens)
            positions += range(len(prompt), len(prompt) + len(tokens))
    weighted = any(reply.weights for record in records for reply in record.replies)
    columns = list(zip(*about, strict=True)) or [(), (), (), ()]
    return FeedbackBatch(
        input_ids=torch.tensor(ids, dtype=torch.int64),
        labels=torch.tensor(labels, dtype=torch.int64),
        position_ids=torch.tensor(positions, dtype=torch.int64),
        segments=np.array(segments, dtype=np.int64).reshape(-1, 3),
        replies=np.array(columns[0], dtype=np.int64),
        records=np.array(columns[1], dtype=np.int64),
        roles=np.array(columns[2], dtype=np.int64),
        scores=np.array(columns[3], dtype=np.float32),
        reply_of=torch.tensor(reply_of, dtype=torch.int64),
        num_records=len(records),
        weights=torch.tensor(weights, dtype=torch.float32) if weighted else None,
        partner=partner,
        record_weights=None
        if all(record.weight == 1 for record in records)
        else np.array([record.weight for record in records], dtype=np.float32),
    )


def random_columns(batch: FeedbackBatch, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Columns of each scored token; ``policy.logp`` is a leaf."""
    rng = np.random.default_rng(seed)
    n = len(batch.reply_of)
    made = {name: torch.tensor(rng.uniform(-3, -0.1, n), dtype=dtype) for name in COLUMNS}
    made["policy.entropy"], made["policy.is_top1"] = -made["policy.entropy"], (made["policy.is_top1"] > -1.5).to(dtype)
    made["policy.logp"].requires_grad_()
    return made


def columns_of_sums(
    batch: FeedbackBatch, policy: Sequence[float], reference: Sequence[float] = (), dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Columns whose log-probabilities sum to these, a reply each, evenly over its tokens."""
    columns = random_columns(batch, dtype=dtype)
    lengths = torch.bincount(batch.reply_of, minlength=batch.num_replies).to(dtype)
    for name, sums in (("policy.logp", policy), ("reference.logp", reference)):
        if len(sums):
            columns[name] = (torch.tensor(sums, dtype=dtype) / lengths)[batch.reply_of]
    columns["policy.logp"].requires_grad_()
    return columns


def summed(
    objective: Objective,
    batches: Sequence[FeedbackBatch],
    columns: Sequence[Mapping[str, Tensor]],
    before: Sequence[Mapping[str, Tensor]] | None = None,
) -> tuple[Tensor, dict[str, float], list[LossOutput]]:
    """The loss, the metrics and the outputs of an update of these micro-batches, as the training loop makes them.

    ``before`` is what a pre-pass sees; default: ``columns``, or the partner's.
    """
    if isinstance(objective, PrepassObjective):
        wanted = before or [
            partner_columns(batch) if batch.partner else {name: value.detach() for name, value in found.items()}
            for batch, found in zip(batches, columns, strict=True)
        ]
        given = objective.prepass(wanted, batches, lambda numbers: numbers)
        batches = [batch.with_given(more) for batch, more in zip(batches, given, strict=True)]
    counts: dict[str, float] = {}
    for batch in batches:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + count
    outputs = [objective.loss({**found, **batch.given}, batch) for found, batch in zip(columns, batches, strict=True)]
    loss = torch.zeros((), dtype=torch.float64)
    metrics: dict[str, list[float]] = {}
    for output, batch in zip(outputs, batches, strict=True):
        assert {name: term.count for name, term in output.terms.items()} == objective.counts(batch)
        for name, term in output.terms.items():
            loss = loss + term.sum * (term.weight / divisor(counts[name]))
        for name, (total, count) in output.metrics.items():
            old = metrics.setdefault(name, [0.0, 0.0])
            old[0], old[1] = old[0] + total, old[1] + count
    return loss, {name: total / (count or 1.0) for name, (total, count) in metrics.items()}, outputs


def partner_columns(batch: FeedbackBatch) -> dict[str, Tensor]:
    """Columns of a batch's partner that depend on its tokens alone, so that they are the same in every split."""
    assert batch.partner is not None
    ids = batch.partner.labels[batch.partner.labels != IGNORE].double()
    return {"policy.logp": -(ids % 7) / 5, "reference.logp": -(ids % 11) / 7 - 0.5}


def loss_of(objective: Objective, batch: FeedbackBatch, columns: Mapping[str, Tensor]) -> Tensor:
    return summed(objective, [batch], [columns])[0]


def value_of(objective: Objective, batch: FeedbackBatch, columns: Mapping[str, Tensor]) -> float:
    return float(loss_of(objective, batch, columns).detach())


def split(
    records: Sequence[Record], columns: Mapping[str, Tensor], at: Sequence[int], make: Callable[..., FeedbackBatch]
) -> tuple[list[FeedbackBatch], list[dict[str, Tensor]]]:
    """Micro-batches of the records, cut before these, with their parts of the columns."""
    borders = [0, *at, len(records)]
    batches, parts, start = [], [], 0
    for low, high in pairwise(borders):
        batch = make(records[low:high])
        end = start + len(batch.reply_of)
        batches.append(batch)
        parts.append({name: value[start:end] for name, value in columns.items()})
        start = end
    return batches, parts
