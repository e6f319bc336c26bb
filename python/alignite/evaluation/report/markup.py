"""HTML that cannot be broken by what it shows: text is escaped unless it is HTML already."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Html(str):
    """A piece of HTML."""

    __slots__ = ()


def clean(value: object) -> str:
    """Text without what no page may hold: control characters and halves of surrogate pairs become U+FFFD."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(value))


def text(value: object) -> Html:
    """Escaped text; HTML stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(clean(value)))


def join(pieces: Iterable[object]) -> Html:
    """Pieces one after the other."""
    return Html("".join(text(piece) for piece in pieces))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. ``class_`` is class, ``aria_label`` aria-label; None leaves an attribute out, True is a bare one."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            parts.append(key if value is True else f'{key}="{text(value)}"')
    end = "" if name in ("meta", "link") else f"</{name}>"
    return Html(f"<{' '.join(parts)}>{join(children)}{end}")


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], numeric: Iterable[int] = (), **extra: object
) -> Html:
    """A table that scrolls in itself when it is wide; ``numeric`` columns are flush right, the first names the row."""
    right = set(numeric)

    def cells(row: Sequence[object], kind: str) -> Html:
        made = []
        for index, cell in enumerate(row):
            is_name = kind == "td" and index == 0
            scope = "col" if kind == "th" else "row" if is_name else None
            made.append(tag("th" if is_name else kind, cell, class_="n" if index in right else None, scope=scope))
        return tag("tr", *made)

    body = tag("tbody", *(cells(row, "td") for row in rows))
    inner = tag("table", tag("thead", cells(head, "th")), body, **extra)
    return tag("div", inner, class_="scroll", tabindex="0")


def script_json(value: object) -> Html:
    """A data block for scripts; no text can end it."""
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Html(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
