"""Windows of a prepared set as they stand in its files: records, and segments that continue a shared prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from alignite.data.prepared import ROLES, Origins, PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import UsageError
from alignite.types import IGNORE


@dataclass(frozen=True)
class Run:
    """Tokens that follow each other: their text, and whether they are scored; ``rating`` is of a rated step's end."""

    text: str
    scored: bool
    rating: int | None = None


@dataclass(frozen=True)
class SegmentView:
    """A segment of a window.

    Args:
        role: of :data:`alignite.data.prepared.ROLES`. ``tokens``: how many; ``scored_tokens`` of them are scored.
        parent: the segment of the window that it continues: its positions begin at ``position``, where that one ends.
        score: a reply's score, margin or p; None where it has none.
        runs: its text.
    """

    role: str
    tokens: int
    scored_tokens: int
    parent: int | None
    position: int
    score: float | None
    runs: list[Run]


@dataclass(frozen=True)
class RecordView:
    """A record of a window: ``file:line``, the row's number, the criterion's number, and its segments by number."""

    place: str
    row: int
    criterion: int | None
    weight: float
    segments: dict[int, SegmentView]


@dataclass(frozen=True)
class WindowView:
    """A window: its number, its tokens, and its records in order."""

    window: int
    tokens: int
    records: list[RecordView]


def windows_of(
    prepared: PreparedSet, tokenizer: ChatTokenizer, num_windows: int = 5, rows: Sequence[str] = ()
) -> list[WindowView]:
    """The first windows of a set, or those that hold these rows: numbers as ``row_ids``, or ``file:line``.

    Raises:
        UsageError: no window holds such a row.
    """
    if not rows:
        return [_window(prepared, tokenizer, number) for number in range(min(num_windows, len(prepared)))]
    holding: dict[str, list[int]] = {row: [] for row in rows}
    for number in range(len(prepared)):
        origins = prepared.origins([number])
        for row, windows in holding.items():
            if _holds(origins, row):
                windows.append(number)
    found: dict[int, None] = {}
    for row, windows in holding.items():
        if not windows:
            raise UsageError(
                f"no window holds row {row}",
                where=str(prepared.folder),
                fix="it may have been left out: see the set's report.json and quarantine.jsonl",
            )
        found.update(dict.fromkeys(windows))
    return [_window(prepared, tokenizer, number) for number in found]


def _holds(origins: Origins, row: str) -> bool:
    if row.isdecimal():
        return int(row) in origins.row_ids
    # The file may be named without its folder.
    return any(place == row or place.endswith(("/" + row, "\\" + row)) for place in origins.places())


def _window(prepared: PreparedSet, tokenizer: ChatTokenizer, number: int) -> WindowView:
    ids, labels, positions, segments = prepared.arrays([number])
    origins = prepared.origins([number])
    records: dict[int, RecordView] = {}
    for segment, (start, length, parent) in enumerate(segments.tolist()):
        role, score = ROLES[origins.roles[segment]], float(origins.scores[segment])
        own = labels[start : start + length]
        view = SegmentView(
            role,
            length,
            int((own != IGNORE).sum()),
            parent if parent >= 0 else None,
            int(positions[start]) if length else 0,
            None if math.isnan(score) else score,
            _runs(ids[start : start + length].tolist(), own.tolist(), role == "steps", tokenizer),
        )
        record = int(origins.records[segment])
        if record not in records:
            criterion = int(origins.criteria[segment])
            records[record] = RecordView(
                origins.place(segment),
                int(origins.row_ids[segment]),
                criterion if criterion >= 0 else None,
                float(origins.record_weights[segment]),
                {},
            )
        records[record].segments[segment] = view
    return WindowView(number, int(np.sum(segments[:, 1])), list(records.values()))


def _runs(ids: list[int], labels: list[int], is_rated: bool, tokenizer: ChatTokenizer) -> list[Run]:
    def kind(pair: tuple[int, int]) -> tuple[bool, int | None]:
        label = pair[1]
        return label != IGNORE, label if is_rated and label != IGNORE else None

    runs = []
    for (scored, rating), group in groupby(zip(ids, labels, strict=True), kind):
        runs.append(Run(tokenizer.decode([token for token, _ in group]), scored, rating))
    return runs
