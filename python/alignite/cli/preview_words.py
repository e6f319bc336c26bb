"""What a preview says in words, and how its text is made visible; the terminal and the page say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from alignite.config import PreviewConfig
from alignite.data.survey import Piece, Preview, PreviewRow

# Spaces that a reader would not see: at either end of a line, and more than one.
_SPACES = re.compile(r"^ +| +$| {2,}", re.MULTILINE)
_SIGNS = {"\n": "⏎", "\t": "⇥", "\x7f": "␡"}
# Joiners hold emoji and letters of some scripts together.
_KEPT = "\u200c\u200d"


@dataclass(frozen=True)
class Fact:
    """A number of the overview."""

    name: str
    value: str
    more: str


@dataclass(frozen=True)
class Note:
    """Something that happened to rows, and where first."""

    count: int
    what: str
    places: list[str]


def facts(preview: Preview, config: PreviewConfig) -> list[Fact]:
    """Rows, tokens and windows, as a run would have them."""
    report = preview.report
    scored, tokens = report["scored_tokens"], report["tokens"]
    return [
        Fact("rows", f"{report['used']:,}", f"trained on, of {report['rows']:,} ({report['format'] or 'no format'})"),
        Fact("tokens", f"{tokens:,}", f"after cutting; {preview.uncut_tokens:,} before"),
        Fact("scored", f"{scored:,}", f"{scored / tokens:.1%} of the tokens" if tokens else "no tokens"),
        Fact(
            "windows",
            f"{report['windows']:,}",
            f"of at most {config.max_length:,} tokens, {report['fill']:.1%} full (packing: {config.packing})",
        ),
    ]


def spreads(preview: Preview) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table of lengths."""
    names = ["min", "p50", "p90", "p95", "p99", "max"]
    lines = [("tokens a row", preview.tokens), ("scored tokens a row", preview.scored_tokens)]
    return names, [[what, *(f"{getattr(spread, name):,}" for name in names)] for what, spread in lines]


def notes(preview: Preview) -> list[Note]:
    """What was cut, dropped, doubled, is worth a look, or held control tokens."""
    report = preview.report
    found = [Note(entry["count"], what, entry["examples"]) for what, entry in report["truncated"].items()]
    found += [Note(entry["count"], f"left out: {what}", entry["examples"]) for what, entry in report["dropped"].items()]
    found += [
        Note(entry["count"], f"part left out: {what}", entry["examples"])
        for what, entry in report["dropped_records"].items()
    ]
    found += [Note(entry["count"], what, entry["examples"]) for what, entry in report["noticed"].items()]
    if preview.duplicates.count:
        pairs = [f"{place} = {first}" for place, first in preview.duplicates.examples]
        found.append(Note(preview.duplicates.count, "the very tokens of an earlier row", pairs))
    if report["control_text"]["count"]:
        tokens = ", ".join(f"{token} in {count:,}" for token, count in preview.control_tokens.items())
        what = f"control tokens in what the row says, kept as text: {tokens}"
        found.append(Note(report["control_text"]["count"], what, report["control_text"]["examples"]))
    return found


def warnings(preview: Preview, config: PreviewConfig) -> list[str]:
    """Why a run with these options would not start."""
    found = []
    if preview.bad.count and config.on_bad_row == "error":
        found.append(
            f"`alignite sft` stops at a row that cannot be used ({preview.bad.examples[0]}); mend it, or set "
            "on_bad_row to skip, which leaves such rows out"
        )
    if not preview.report["used"]:
        found.append("`alignite sft` stops: no row is left to train on")
    return found


def headline(row: PreviewRow) -> str:
    """A row's numbers and what became of it."""
    if not row.pieces:
        return f"{row.fate}: {row.reason}"
    if row.fate == "dropped":
        return f"dropped: {row.reason} ({row.tokens:,} tokens, {row.scored_tokens:,} scored)"
    text = f"{row.kept_tokens:,} tokens, {row.kept_scored_tokens:,} scored"
    return f"{text}; {row.reason}, {row.tokens:,} before" if row.fate == "cut" else text


def is_away(row: PreviewRow, piece: Piece) -> bool:
    """Whether a piece lies behind the cut."""
    return row.kept_tokens < row.tokens and piece.position >= row.kept_tokens


def visible(pieces: Sequence[Piece]) -> list[list[tuple[str, bool]]]:
    """Each piece's text as parts, with whether a part is a sign for what does not show itself.

    Line breaks and tabs follow their sign. Nothing is left that a terminal would obey or that would turn the
    direction of text.
    """
    text = "".join(piece.text for piece in pieces)
    # A control token is an end of a line too.
    lines = "".join("\n" * len(piece.text) if piece.kind == "control" else piece.text for piece in pieces)
    spaces = [match.span() for match in _SPACES.finditer(lines)]
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece.text))
    found, first = [], 0
    for start, end in pairwise(ends):
        while first < len(spaces) and spaces[first][1] <= start:
            first += 1
        parts: list[tuple[str, bool]] = []
        at, index = start, first
        while at < end:
            left, right = spaces[index] if index < len(spaces) else (end, end)
            if at < left:
                parts += harmless(text[at : min(left, end)])
                at = min(left, end)
            else:
                parts.append(("·" * (min(right, end) - at), True))
                at, index = min(right, end), index + 1
        found.append(parts)
    return found


def harmless(text: str) -> list[tuple[str, bool]]:
    """Text as :func:`visible` gives it, with its spaces as they are."""
    if text.isprintable():
        return [(text, False)]
    parts: list[tuple[str, bool]] = []
    for character in text:
        if character.isprintable() or character in _KEPT:
            parts.append((character, False))
            continue
        code = ord(character)
        escape = f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        parts.append((_SIGNS.get(character) or (chr(0x2400 + code) if code < 32 else escape), True))
        if character in "\n\t":
            parts.append((character, False))
    return parts
