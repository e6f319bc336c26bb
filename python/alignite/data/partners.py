"""Each record's prompt with another record's reply, which KTO's estimate of the KL divergence looks at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alignite.errors import DataError
from alignite.types import IGNORE, NO_PARENT, FeedbackBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray


def with_partners(batch: FeedbackBatch, others: FeedbackBatch, max_length: int) -> FeedbackBatch:
    """The batch whose ``partner`` holds the i-th record's prompt with the i-th other record's reply.

    Args:
        batch, others: as many records, each a prompt and one reply.
        max_length: replies are cut where a prompt with one would be longer.

    Raises:
        DataError: a record has several replies.
    """
    import torch

    for one in (batch, others):
        if one.num_replies != one.num_records or len(one.segments) != 2 * one.num_records:
            raise DataError(
                "a record has not one prompt and one reply", fix="give rows with prompt, completion and label"
            )
    ids, labels, positions = [], [], []
    segments: list[tuple[int, int, int]] = []
    start = 0
    for mine, theirs in zip(batch.replies.tolist(), others.replies.tolist(), strict=True):
        prompt = _tokens(batch, int(batch.segments[mine, 2]))
        reply = _tokens(others, theirs)[: max(max_length - len(prompt), 1)]
        ids += [batch.input_ids[prompt], others.input_ids[reply]]
        labels += [torch.full((len(prompt),), IGNORE), others.labels[reply]]
        positions.append(torch.arange(len(prompt) + len(reply)))
        segments += [(start, len(prompt), NO_PARENT), (start + len(prompt), len(reply), len(segments))]
        start += len(prompt) + len(reply)
    layout = np.array(segments, dtype=np.int64)
    scored = torch.cat(labels)
    replies = np.arange(1, len(layout), 2)
    of = torch.from_numpy(np.repeat(np.arange(len(layout)), layout[:, 1]) // 2)[scored != IGNORE]
    partner = FeedbackBatch(
        torch.cat(ids), scored, torch.cat(positions), layout, replies, batch.records, others.roles, others.scores, of,
        batch.num_records,
    )  # fmt: skip
    return replace(batch, partner=partner)


def _tokens(batch: FeedbackBatch, segment: int) -> NDArray[np.int64]:
    start, length, _ = batch.segments[segment].tolist()
    return np.arange(start, start + length)
