"""Windows of a prepared set on a terminal: where records begin, and which segments share a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignite.cli.preview_words import harmless
from alignite.data.windows import RecordView, SegmentView, WindowView

_NAMES = {"chosen": "margin", "rejected": "p"}


def lines(windows: Sequence[WindowView], criteria: Sequence[str] = ()) -> Iterator[str]:
    """What is printed, line by line; scored tokens stand in ⟦ ⟧, a step's rating behind its last token."""
    for window in windows:
        records = "record" if len(window.records) == 1 else "records"
        yield f"window {window.window:,}  {window.tokens:,} tokens, {len(window.records)} {records}"
        for record in window.records:
            yield f"  ┌ row {record.row:,}  {_plain(record.place)}{_about(record, criteria)}"
            for number, segment in record.segments.items():
                yield f"  │ {number} {_segment(segment, list(record.segments.values()), number)}"
                yield from (f"  │   {line}" for line in _text(segment).split("\n"))
            yield "  └"
        yield ""


def _about(record: RecordView, criteria: Sequence[str]) -> str:
    found = ""
    if record.criterion is not None:
        named = criteria[record.criterion] if record.criterion < len(criteria) else str(record.criterion)
        found += f"  criterion {named}"
    return found + (f"  weight {record.weight:g}" if record.weight != 1 else "")


def _segment(segment: SegmentView, others: Sequence[SegmentView], number: int) -> str:
    end = segment.position + segment.tokens - 1
    found = f"{segment.role}: {segment.tokens:,} tokens, {segment.scored_tokens:,} scored, positions "
    found += f"{segment.position:,} to {end:,}"
    if segment.parent is not None:
        found += f", behind {segment.parent}"
    children = sum(other.parent == number for other in others)
    found += f", shared by {children} replies" if children > 1 else ""
    return found + (f", {_NAMES.get(segment.role, 'score')} {segment.score:g}" if segment.score is not None else "")


def _text(segment: SegmentView) -> str:
    parts = []
    for run in segment.runs:
        text = _plain(run.text).replace("\n", "⏎\n")
        rating = f" {run.rating:+d}" if run.rating else " 0" if run.rating == 0 else ""
        parts.append(f"⟦{text}{rating}⟧" if run.scored else text)
    return "".join(parts).removesuffix("\n")


def _plain(text: str) -> str:
    """Text without anything that a terminal would obey."""
    return "\n".join("".join(part for part, _ in harmless(line)) for line in text.split("\n"))
