"""Feedback batches of made-up tokens, for objectives that read scores and labels only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignite.types import FeedbackBatch, ReplyRole


def feedback_batch(
    replies: Sequence[tuple[int, ReplyRole, float]], num_records: int | None = None, tokens: int = 2
) -> FeedbackBatch:
    """Replies (record, role, score) of ``tokens`` scored tokens each, without prompts."""
    records = np.array([record for record, _, _ in replies])
    ids = torch.arange(len(replies) * tokens) + 3
    starts = np.arange(len(replies)) * tokens
    segments = np.stack([starts, np.full(len(replies), tokens), np.full(len(replies), -1)], axis=1).astype(np.int64)
    return FeedbackBatch(
        ids,
        ids.clone(),
        torch.arange(tokens).repeat(len(replies)),
        segments,
        np.arange(len(replies)),
        records,
        np.array([int(role) for _, role, _ in replies]),
        np.array([score for _, _, score in replies], dtype=np.float32),
        torch.arange(len(replies)).repeat_interleave(tokens),
        int(records.max()) + 1 if num_records is None else num_records,
    )


def pair_batch(margins: Sequence[float | None], ps: Sequence[float | None]) -> FeedbackBatch:
    """A pair a record: chosen, then rejected."""
    replies = []
    for record, (margin, p) in enumerate(zip(margins, ps, strict=True)):
        replies.append((record, ReplyRole.CHOSEN, np.nan if margin is None else margin))
        replies.append((record, ReplyRole.REJECTED, np.nan if p is None else p))
    return feedback_batch(replies)


def ranking_batch(*rankings: Sequence[float]) -> FeedbackBatch:
    """A ranking a record, by its scores."""
    return feedback_batch([(n, ReplyRole.REPLY, score) for n, scores in enumerate(rankings) for score in scores])


def steps_batch(*solutions: Sequence[int]) -> FeedbackBatch:
    """Solutions by their steps' ratings, a token a step behind a token of prompt."""
    labels = [label for ratings in solutions for label in (-100, *ratings)]
    lengths = [len(ratings) + 1 for ratings in solutions]
    starts = np.cumsum([0, *lengths[:-1]])
    count = len(solutions)
    return FeedbackBatch(
        torch.arange(len(labels)) + 3,
        torch.tensor(labels),
        torch.cat([torch.arange(length) for length in lengths]),
        np.stack([starts, lengths, np.full(count, -1)], axis=1).astype(np.int64),
        np.arange(count),
        np.arange(count),
        np.full(count, int(ReplyRole.STEPS)),
        np.full(count, np.nan, dtype=np.float32),
        torch.tensor([n for n, ratings in enumerate(solutions) for _ in ratings]),
        count,
    )


def column(values: Sequence[float]) -> Tensor:
    """Scores (replies, 1) that take gradients."""
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_()
