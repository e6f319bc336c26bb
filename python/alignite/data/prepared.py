"""Prepared sets, as training reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.errors import DataError, UsageError
from alignite.native import data as native
from alignite.types import CRITERION, IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alignite.types import FeedbackBatch, SftBatch


ROLES = ("whole", "prompt", "chosen", "rejected", "reply", "steps")
"""What a segment is in its record, by its number in prepared files."""


@dataclass(frozen=True)
class Origins:
    """Where segments come from and what they are, one entry a segment.

    Args:
        row_ids: int64, the line's number among those that held something, from 0 over all files.
        sources: int64, the file, as an index into ``names``.
        lines: int64, the line or row of the file, from 1.
        records: int64, which record of the windows asked for; the segments of a record follow each other.
        roles: int64, an index into :data:`ROLES`.
        scores: float32, a reply's score, a label as 1 or 0, a chosen reply's margin; NaN when there is none.
        criteria: int64, the number of the criterion that the record is about, by the option ``criteria``; -1 for none.
        record_weights: float32, how much the record counts.
        names: the files.
    """

    row_ids: NDArray[np.int64]
    sources: NDArray[np.int64]
    lines: NDArray[np.int64]
    records: NDArray[np.int64]
    roles: NDArray[np.int64]
    scores: NDArray[np.float32]
    criteria: NDArray[np.int64]
    record_weights: NDArray[np.float32]
    names: tuple[str, ...]

    def places(self) -> list[str]:
        """``file:line`` of each segment."""
        return [self.place(segment) for segment in range(len(self.row_ids))]

    def place(self, segment: int) -> str:
        """``file:line`` of one."""
        return f"{self.names[self.sources[segment]]}:{self.lines[segment]}"


class PreparedSet:
    """Windows of tokens in Arrow files that are mapped, not read into memory.

    ``reused`` says that preparing found this set as it was wanted; ``work`` holds the rows, tokens and seconds of the
    call that made it, without what an earlier one had done.

    Raises:
        DataError: there is no prepared set in the folder, or its bytes are not those that were written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._native = native.PreparedSet(self.folder)
        self.reused = False
        self.work = (0, 0, 0.0)

    def __len__(self) -> int:
        return len(self._native)

    def __reduce__(self) -> tuple[type[PreparedSet], tuple[Path]]:
        return PreparedSet, (self.folder,)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the content."""
        return self._native.fingerprint

    @property
    def report(self) -> dict[str, Any]:
        """What became of the rows; see docs/data_flow.md."""
        report: dict[str, Any] = json.loads(self._native.report)
        return report | {"reused": self.reused}

    def window_tokens(self, windows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each of these windows."""
        return self._native.window_tokens(np.asarray(windows, dtype=np.int64))

    def window_scored(self, windows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Scored tokens of each of these windows."""
        return self._native.window_scored(np.asarray(windows, dtype=np.int64))

    def arrays(
        self, windows: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(input_ids, labels, position_ids) of shape (tokens,) and segments of shape (n, 3), all int64.

        A segment is (start, length, parent): a reply's parent is the segment of its prompt, whose last token predicts
        the reply's first; its positions go on where the prompt ends. Other segments have parent -1, positions from 0
        and -100 as their first label.
        """
        return self._native.batch(np.asarray(windows, dtype=np.int64))[:4]

    def weights(self, windows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32] | None:
        """How much each token of these windows counts, float32 (tokens,), or None when every token counts 1."""
        return self._native.batch(np.asarray(windows, dtype=np.int64))[4]

    def batch(self, windows: Sequence[int] | NDArray[np.int64]) -> SftBatch:
        """These windows as a batch for torch, which sees Rust's memory without a copy."""
        import torch

        from alignite.types import SftBatch

        arrays = self._native.batch(np.asarray(windows, dtype=np.int64))
        input_ids, labels, position_ids, segments, weights = arrays
        return SftBatch(
            torch.from_numpy(input_ids),
            torch.from_numpy(labels),
            torch.from_numpy(position_ids),
            segments,
            len(windows),
            None if weights is None else torch.from_numpy(weights),
        )

    def feedback_batch(self, windows: Sequence[int] | NDArray[np.int64]) -> FeedbackBatch:
        """These windows of pairs, rankings, labelled replies or rated steps as a batch for torch.

        Raises:
            DataError: a window holds a conversation or a text, which compare nothing.
        """
        import torch

        from alignite.types import FeedbackBatch, ReplyRole

        indices = np.asarray(windows, dtype=np.int64)
        input_ids, labels, position_ids, segments, weights = self._native.batch(indices)
        origins = self.origins(indices)
        records, roles, criteria, counts = origins.records, origins.roles, origins.criteria, origins.record_weights
        if (roles == ReplyRole.WHOLE).any():
            raise DataError(
                "a record compares no replies",
                where=f"{origins.place(int(np.argmax(roles == ReplyRole.WHOLE)))} in {self.folder}",
                fix="give pairs, rankings, labelled replies or rated steps",
            )
        replies = np.flatnonzero(roles != ReplyRole.PROMPT)
        # A record's number is that of its window and its place in it; here they count from 0.
        _, first, numbers = np.unique(records[replies], return_index=True, return_inverse=True)
        about = criteria[replies[first]]
        segment_of = np.repeat(np.arange(len(segments)), segments[:, 1])
        reply_of = np.searchsorted(replies, segment_of[labels != IGNORE])
        return FeedbackBatch(
            torch.from_numpy(input_ids),
            torch.from_numpy(labels),
            torch.from_numpy(position_ids),
            segments,
            replies,
            numbers.astype(np.int64),
            roles[replies],
            origins.scores[replies],
            torch.from_numpy(reply_of),
            len(first),
            None if weights is None else torch.from_numpy(weights),
            given={CRITERION: torch.from_numpy(about)} if (about >= 0).any() else {},
            record_weights=counts[replies[first]] if (counts != 1).any() else None,
            places=[origins.place(segment) for segment in replies[first].tolist()],
        )

    def origins(self, windows: Sequence[int] | NDArray[np.int64]) -> Origins:
        """Where the segments of these windows come from, and what they are."""
        columns = self._native.origins(np.asarray(windows, dtype=np.int64))
        return Origins(*columns, self._names)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The files, which batch after batch is told of."""
        return tuple(self.report["sources"])

    def export(self, output: str | Path, to: str = "parquet") -> list[Path]:
        """Write the set for other stacks and return the files.

        Args:
            output: a new file; for ``megatron`` the start of the new files' names. Folders are made.
            to: ``parquet``, or ``megatron``: OUTPUT.bin and .idx hold the ids of each record, and since a .bin holds
                ids only, OUTPUT_labels.bin and .idx its labels; int32.

        Raises:
            UsageError: ``to`` is another word, or ``megatron`` for a set with weights other than 1 or with compared or
                rated replies, which these files cannot say. ResourceError: a file is there or cannot be written.
        """
        path = Path(output)
        if to == "parquet":
            self._native.to_parquet(path)
            return [path]
        if to == "megatron":
            self._native.to_megatron(path)
            return [Path(f"{path}{suffix}") for suffix in (".bin", ".idx", "_labels.bin", "_labels.idx")]
        raise UsageError(f"there is no export to {to!r}", fix="it is parquet or megatron")


def split_windows(
    windows: NDArray[np.int64], tokens: NDArray[np.int64], batch_size: int, max_tokens: int | None
) -> list[NDArray[np.int64]]:
    """Windows in parts, in order: a new one at every ``batch_size`` and where one more would pass ``max_tokens``."""
    borders, held = [], 0
    for index, count in enumerate(tokens.tolist()):
        if index > 0 and (index % batch_size == 0 or (max_tokens is not None and held + count > max_tokens)):
            borders.append(index)
            held = 0
        held += count
    return np.split(windows, borders) if len(windows) else []
