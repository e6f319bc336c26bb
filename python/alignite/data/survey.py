"""What a run would train on, before it runs: numbers over all rows, and some rows token by token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignite.config import PreviewConfig, SFTConfig
from alignite.data.prepare import Data, resolve_data
from alignite.data.tokenizer import ChatTokenizer

# What only a set on disk has.
_WRITTEN = {"fingerprint", "reused", "parts", "identity", "sources", "base", "shard", "appended", "notes"}
_WRITTEN |= {"source_prints", "template_date"}


@dataclass(frozen=True)
class Spread:
    """How a number is spread over rows.

    Percentiles are nearest-rank: the smallest number that some row has and that so many percent of the rows do not
    exceed. ``total`` is the sum. All are 0 when there are no rows.
    """

    rows: int
    total: int
    min: int
    p50: int
    p90: int
    p95: int
    p99: int
    max: int


@dataclass(frozen=True)
class Count:
    """How many rows, and the first few places as ``file:line``."""

    count: int
    examples: list[str]


@dataclass(frozen=True)
class Duplicates:
    """Rows that are trained on and have the very tokens of an earlier one; the first few as (place, earlier place)."""

    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Turn:
    """The tokens ``start`` up to ``stop`` of a row, which are a message's content, or a raw text's prompt.

    ``weight`` is how much those that are scored count.
    """

    role: str
    start: int
    stop: int
    weight: float = 1.0

    @property
    def speaker(self) -> str:
        """The role, and the weight where it is not 1."""
        return self.role if self.weight == 1 else f"{self.role} (weight {self.weight:.6g})"


@dataclass(frozen=True)
class Piece:
    """The fewest tokens that are whole characters together.

    Args:
        text: the characters; U+FFFD where the cut goes through a character.
        position: the place of the first of ``ids`` in the row.
        ids: the tokens; empty for text that the tokenizer leaves out.
        scored: whether the model is to say it.
        kind: ``control`` is a control token, ``literal`` text of the row that only reads like one.
    """

    text: str
    position: int
    ids: list[int]
    scored: bool
    kind: Literal["text", "control", "literal"]


@dataclass(frozen=True)
class PreviewRow:
    """One row in full.

    Args:
        row: counted from 0 over all files, as ``row_ids`` of a prepared set.
        place: ``file:line``.
        fate: ``used``, ``cut`` (and used), ``dropped``, or ``bad``, which ends a run unless ``on_bad_row`` is skip.
        reason: how it was cut or why it is left out.
        why: more about a bad row.
        fix: how a bad row can be mended.
        line: the start of the row's line when it has no tokens.
        tokens: how many before it is cut.
        scored_tokens: how many of these are scored.
        kept_tokens: how many, from the first, are trained on.
        kept_scored_tokens: how many of these are scored.
        turns: what the row itself says; the rest is the template's.
        pieces: the whole text, before it is cut.
    """

    row: int
    place: str
    fate: Literal["used", "cut", "dropped", "bad"]
    reason: str | None
    why: str | None
    fix: str | None
    line: str | None
    tokens: int
    scored_tokens: int
    kept_tokens: int
    kept_scored_tokens: int
    turns: list[Turn]
    pieces: list[Piece]


@dataclass(frozen=True)
class Preview:
    """What :func:`preview` saw.

    Args:
        report: what ``prepare_sft`` reports on the same rows with ``on_bad_row="skip"``, except for a written set's
            fingerprint and hash: ``format``, ``rows``, ``used``, ``windows``, ``tokens``, ``scored_tokens``, ``fill``,
            ``longest``, and rows with first places that were ``truncated``, ``dropped`` or hold ``control_text``.
        bad: rows among the dropped that end a run with ``on_bad_row="error"``.
        tokens: of each row that could be tokenized, before it is cut.
        scored_tokens: of the same rows.
        uncut_tokens: tokens of the rows that are trained on, before they are cut.
        duplicates: rows that are trained on more than once.
        control_tokens: control tokens whose text stands in what rows say, with the number of these rows.
        rows: the rows that were asked for, or the first that are trained on.
        examples: a row for each thing that happened to rows, unless one is among ``rows``; none when rows were asked
            for.
    """

    report: dict[str, Any]
    bad: Count
    tokens: Spread
    scored_tokens: Spread
    uncut_tokens: int
    duplicates: Duplicates
    control_tokens: dict[str, int]
    rows: list[PreviewRow]
    examples: list[PreviewRow]


def preview(
    data: Data,
    tokenizer: ChatTokenizer,
    config: SFTConfig | PreviewConfig,
    *,
    num_rows: int = 5,
    rows: Sequence[int | str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Preview:
    """Look at data as ``prepare_sft`` with ``on_bad_row="skip"`` would, without writing anything.

    One pass over all rows, in memory that grows by at most some 100 bytes a row, by which duplicates are told.

    Args:
        data: as for ``prepare_sft``.
        tokenizer: the model's.
        config: the same options are used as by ``prepare_sft``, except for ``on_bad_row``.
        num_rows: how many of the rows that are trained on to keep in full; with 0 there are no examples either.
        rows: keep these instead: numbers, counted from 0 over all files, or ``file:line``.
        progress: called with the rows and tokens done, about ten times a second and at the end.

    Raises:
        DataError: a file cannot be read or is empty, or no format fits the rows.
        TemplateError, TokenizerError: the model folder cannot be used.
        UsageError: there is no such row.
    """
    preparer = tokenizer.preparer(config)
    sources, _ = resolve_data(data)
    seen = preparer.survey(sources, num_rows, [str(row) for row in rows], progress)
    return _read(json.loads(seen))


def _read(seen: dict[str, Any]) -> Preview:
    return Preview(
        report={name: value for name, value in seen["report"].items() if name not in _WRITTEN},
        bad=Count(**seen["bad"]),
        tokens=Spread(**seen["tokens"]),
        scored_tokens=Spread(**seen["scored_tokens"]),
        uncut_tokens=seen["uncut_tokens"],
        duplicates=Duplicates(
            seen["duplicates"]["count"], [(place, first) for place, first in seen["duplicates"]["examples"]]
        ),
        control_tokens=seen["control_tokens"],
        rows=[_row(row) for row in seen["rows"]],
        examples=[_row(row) for row in seen["examples"]],
    )


def _row(row: dict[str, Any]) -> PreviewRow:
    turns = [Turn(**turn) for turn in row["turns"]]
    return PreviewRow(**row | {"turns": turns, "pieces": [Piece(**piece) for piece in row["pieces"]]})
