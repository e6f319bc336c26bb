"""A preview as one HTML page: everything in it, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from alignite.cli.preview_words import facts, harmless, headline, is_away, notes, spreads, visible, warnings
from alignite.config import PreviewConfig
from alignite.data.survey import Piece, Preview, PreviewRow
from alignite.evaluation.report.document import document
from alignite.evaluation.report.markup import Html, table, tag

_LEGEND = (
    ("scored: the model is to say it", "s"),
    ("read, not scored", ""),
    ("control token", "c"),
    ("text that reads like a control token", "l"),
    ("cut away", "x"),
)


def page(preview: Preview, config: PreviewConfig) -> Html:
    """The page; the same preview gives the same bytes."""
    parts = [
        tag(
            "header",
            tag("p", "alignite preview", class_="kicker"),
            tag("h1", "What the model is trained on"),
            tag("p", ", ".join(config.data[:4]) + (" ..." if len(config.data) > 4 else "")),
            tag("p", f"tokens of {config.model}, at most {config.max_length:,} a row"),
        ),
        *(tag("aside", warning) for warning in warnings(preview, config)),
        tag(
            "dl",
            *(
                tag("div", tag("dt", fact.name), tag("dd", tag("b", fact.value), tag("span", fact.more)))
                for fact in facts(preview, config)
            ),
            class_="tiles",
        ),
        _lengths(preview),
        _notes(preview),
        _rows("Rows", preview.rows, legend=True),
        _rows("One row of each kind that something happened to", preview.examples, legend=not preview.rows),
    ]
    return document("preview · alignite", parts, Path(__file__).parent / "preview.css")


def _lengths(preview: Preview) -> Html:
    names, lines = spreads(preview)
    note = f"Of {preview.tokens.rows:,} rows that could be tokenized, before any is cut."
    body = table(["", *names], lines, numeric=range(1, len(names) + 1))
    return tag("section", tag("h2", "Lengths"), body, tag("p", note, class_="lead"))


def _notes(preview: Preview) -> Html:
    found = [
        [f"{note.count:,}", note.what, tag("span", ", ".join(note.places), class_="places")] for note in notes(preview)
    ]
    if not found:
        return tag("section", tag("h2", "What happened to rows"), tag("p", "Nothing: every row is used whole, once."))
    return tag("section", tag("h2", "What happened to rows"), table(["rows", "what", "first places"], found))


def _rows(title: str, rows: list[PreviewRow], legend: bool) -> Html:
    if not rows:
        return Html()
    key: object = ""
    if legend:
        names = [tag("b", tag("span", name, class_=f"t {kind}".strip())) for name, kind in _LEGEND]
        key = tag("div", *names, tag("b", "⏎ line break  ⇥ tab  · space"), class_="legend")
    return tag("section", tag("h2", title), key, *(_row(row) for row in rows))


def _row(row: PreviewRow) -> Html:
    head = tag("h3", f"row {row.row:,} ", tag("span", f"{row.place} · {headline(row)}"))
    more = [tag("p", text, class_="why") for text in (row.why, row.fix) if text]
    if row.pieces:
        body = tag("div", *_pieces(row), class_="text", tabindex="0")
    elif row.line is not None:
        body = tag("div", *_parts(harmless(row.line)), class_="text", tabindex="0")
    else:
        body = Html()
    return tag("article", head, *more, body, class_="row")


def _pieces(row: PreviewRow) -> Iterator[Html]:
    speakers = {start: [turn.speaker for turn in turns] for start, turns in groupby(row.turns, lambda turn: turn.start)}
    was_away = False
    for index, (piece, parts) in enumerate(zip(row.pieces, visible(row.pieces), strict=True)):
        away = is_away(row, piece)
        if away and not was_away and row.kept_tokens:
            count = row.tokens - row.kept_tokens
            yield tag("span", f"✂ cut here: {count:,} tokens that are not trained on follow", class_="cut")
        was_away = away
        for role in speakers.pop(piece.position, ()):
            yield tag("span", role, class_="who")
        kinds = ["t", "o" if index % 2 else "", "s" if piece.scored else ""]
        kinds += [{"control": "c", "literal": "l"}.get(piece.kind, ""), "x" if away else ""]
        yield tag("span", *_parts(parts), class_=" ".join(filter(None, kinds)), title=_title(piece, away))


def _parts(parts: list[tuple[str, bool]]) -> Iterator[object]:
    for text, is_sign in parts:
        yield tag("i", text) if is_sign else text


def _title(piece: Piece, away: bool) -> str:
    last = piece.position + len(piece.ids) - 1
    if not piece.ids:
        place = "no token"
    elif len(piece.ids) == 1:
        place = f"position {last}, id {piece.ids[0]}"
    else:
        place = f"positions {piece.position} to {last}, ids {' '.join(map(str, piece.ids))}"
    return place + (", cut away" if away else ", scored" if piece.scored else "")
