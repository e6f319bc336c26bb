"""A preview on a terminal, in colour where there is colour, and with marks where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.text import Text

from alignite.cli.preview_words import facts, harmless, headline, is_away, notes, spreads, visible, warnings
from alignite.config import PreviewConfig
from alignite.data.survey import Piece, Preview, PreviewRow, Turn

# Tokens of a row that are shown from its start and its end, and behind its cut.
_HEAD, _TAIL, _AWAY = 240, 80, 40
_NOTES, _TURNS, _PLACES = 20, 8, 3
_INDENT = 2

Shown = tuple[Piece, list[tuple[str, bool]]]

_STYLES = {
    "scored": "bold green",
    "control": "cyan",
    "both": "black on green",
    "literal": "yellow",
    "away": "dim strike",
}


def show(preview: Preview, config: PreviewConfig, console: Console) -> None:
    """Print numbers, notes and rows."""
    colours = console.color_system is not None and not console.no_color
    for fact in facts(preview, config):
        _print(Text(f"{fact.name:<9}{fact.value:>12}  {fact.more}"), console)
    console.print()
    names, lines = spreads(preview)
    widths = [max(len(cell) for cell in column) for column in zip(*(line[1:] for line in lines), names, strict=True)]
    label = max(len(line[0]) for line in lines)
    for what, *cells in [["", *names], *lines]:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        _print(Text(f"{what:<{label}}  {'  '.join(aligned)}"), console)
    _print_notes(preview, config, console, colours)
    for title, rows in (("", preview.rows), ("One row of each kind that something happened to", preview.examples)):
        if rows and title:
            _print(Text(f"\n{title}", style="bold" if colours else ""), console)
        for index, row in enumerate(rows):
            if index == 0 and not title:
                _print(Text("\n").append_text(_legend(colours)), console)
            _print_row(row, console, colours)


def _print_notes(preview: Preview, config: PreviewConfig, console: Console, colours: bool) -> None:
    found = notes(preview)
    if found:
        console.print()
    for note in found[:_NOTES]:
        places = ", ".join(note.places[:_PLACES])
        rows = "row" if note.count == 1 else "rows"
        _print(_plain(f"{note.count:,} {rows}: {note.what} (first: {places})"), console)
    if len(found) > _NOTES:
        _print(Text(f"and {len(found) - _NOTES} more reasons; --json has them all"), console)
    for warning in warnings(preview, config):
        _print(_plain(f"\n{warning}", "bold red" if colours else ""), console)


def _legend(colours: bool) -> Text:
    signs = "  ⏎ line break  ⇥ tab  · space"
    if not colours:
        return Text(f"⟦scored⟧  ‹control token›{signs}")
    legend = Text()
    for name, kind in (
        ("scored", "scored"),
        ("control token", "control"),
        ("scored control token", "both"),
        ("text that reads like one", "literal"),
        ("cut away", "away"),
    ):
        legend.append(name, _STYLES[kind]).append("  ")
    return legend.append(signs.strip())


def _print_row(row: PreviewRow, console: Console, colours: bool) -> None:
    _print(_plain(f"\nrow {row.row:,}  {row.place}  {headline(row)}", "bold" if colours else ""), console)
    for more in (row.why, row.fix, _turns(row.turns), row.line):
        if more:
            _print(_plain(more), console, _INDENT)
    body = Text()
    for part in _shortened(row):
        if isinstance(part, str):
            if body.plain and not body.plain.endswith("\n"):
                body.append("\n")
            body.append(f"{part}\n", "italic" if colours else "")
        else:
            _append(body, row, part, colours)
    if body:
        _print(body, console, _INDENT)


def _print(text: Text, console: Console, indent: int = 0) -> None:
    text.rstrip()
    for line in text.wrap(console, max(console.width - indent, 20), overflow="fold"):
        line.rstrip()
        console.print(Text(" " * indent).append_text(line), soft_wrap=True)


def _turns(turns: Sequence[Turn]) -> str:
    if not turns:
        return ""
    shown = ", ".join(f"{turn.speaker} {turn.stop - turn.start:,}" for turn in turns[:_TURNS])
    more = f", and {len(turns) - _TURNS} more" if len(turns) > _TURNS else ""
    return f"contents in tokens: {shown}{more}"


def _plain(text: str, style: str = "") -> Text:
    """Text of rows and files without anything that a terminal would obey."""
    lines = ("".join(part for part, _ in harmless(line)) for line in text.split("\n"))
    return Text("\n".join(lines), style)


def _shortened(row: PreviewRow) -> Iterator[list[Shown] | str]:
    """Pieces to print, and lines that stand for what is left out or cut."""
    shown = list(zip(row.pieces, visible(row.pieces), strict=True))
    kept = [pair for pair in shown if not is_away(row, pair[0])]
    away = shown[len(kept) :]
    yield from _around(kept, _HEAD, _TAIL)
    if away and kept:
        yield f"✂ cut here: {row.tokens - row.kept_tokens:,} tokens that are not trained on follow"
    yield from _around(away, _AWAY, 0) if kept else _around(away, _HEAD, _TAIL)


def _around(shown: list[Shown], head: int, tail: int) -> Iterator[list[Shown] | str]:
    sizes = [len(piece.ids) for piece, _ in shown]
    if sum(sizes) <= head + tail + head // 4:
        yield shown
        return
    first, last = 0, len(shown)
    while sum(sizes[: first + 1]) <= head:
        first += 1
    while tail and sum(sizes[last - 1 :]) <= tail:
        last -= 1
    scored = sum(size for (piece, _), size in zip(shown[first:last], sizes[first:last], strict=True) if piece.scored)
    yield shown[:first]
    yield f"... {sum(sizes[first:last]):,} tokens, {scored:,} of them scored ..."
    yield shown[last:]


def _append(body: Text, row: PreviewRow, shown: list[Shown], colours: bool) -> None:
    for style, parts in groupby(_styled(row, shown, colours), lambda part: part[1]):
        body.append("".join(text for text, _ in parts).replace("\t", "   "), style if colours else "")


def _styled(row: PreviewRow, shown: list[Shown], colours: bool) -> Iterator[tuple[str, str]]:
    inside = False
    for piece, parts in shown:
        away = is_away(row, piece)
        is_scored = piece.scored and not away
        style = _STYLES.get(_kind(piece, is_scored, away), "")
        if not colours:
            if is_scored != inside:
                yield ("⟦" if is_scored else "⟧"), ""
                inside = is_scored
            if piece.kind == "control":
                parts = [("‹", True), *parts, ("›", True)]
        for text, is_sign in parts:
            # What strikes text out is dim already.
            dim = " dim" if is_sign and not away else ""
            yield text, f"{style}{dim}".strip()
    if inside:
        yield "⟧", ""


def _kind(piece: Piece, is_scored: bool, away: bool) -> str:
    if away:
        return "away"
    if piece.kind == "control":
        return "both" if is_scored else "control"
    return "scored" if is_scored else piece.kind
