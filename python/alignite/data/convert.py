"""Rows of one format as rows of another: messages, ShareGPT, Alpaca, TRL's formats, HH, and many more that are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignite.data.prepare import Data, files_or_rows
from alignite.data.survey import Count
from alignite.errors import ResourceError, UsageError
from alignite.native.convert import convert_files, format_names
from alignite.native.convert import convert_rows as _convert_rows

Form = Literal["auto", "text", "messages"]
Pairs = Literal["all", "best-worst"]


@dataclass(frozen=True)
class Conversion:
    """What became of the rows.

    Args:
        format: the format that they had.
        rows: how many were read.
        written: how many were written; one may give several.
        lost: by the name of a field that the new format has no place for, the rows that had it. ``column x`` is a
            column that the format does not read.
        bad: by reason, the rows that were not converted.
    """

    format: str
    rows: int
    written: int
    lost: dict[str, int]
    bad: dict[str, Count]


def readable_formats() -> list[str]:
    """The names of the formats that are read."""
    return format_names()[0]


def writable_formats() -> list[str]:
    """The names of the formats that are written."""
    return format_names()[1]


def convert(
    data: Data,
    to: str,
    output: str | Path,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    form: Form = "auto",
    pairs: Pairs = "all",
    on_bad_row: Literal["error", "skip"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write data as a JSONL file of another format.

    A preference becomes two unpaired rows; a ranking becomes preferences; feedback becomes the conversation with its
    best reply. What the new format cannot say is counted by name.

    Args:
        data: a path, a glob, a data set of the hub, a list of them, or rows as mappings.
        to: one of :func:`writable_formats`.
        output: a new file, gzipped when its name ends with ``.gz``; it is there whole or not at all.
        format: one of :func:`readable_formats`; told from the first 100 rows by default.
        columns: by the format's name for a column, the column's own name.
        form: whether prompts and replies are written as text or as messages where the format takes both; as the row had
            them by default.
        pairs: which pairs of a ranking become preferences, never ties: all, or the best against the worst.
        on_bad_row: whether a row that cannot be converted is an error or counted.
        progress: called with the rows done, about ten times a second and at the end.

    Raises:
        DataError: a file or row cannot be read or converted, no format fits, or no row is left.
        UsageError: there is no such format or column of it.
        ResourceError: the output is there already or cannot be written.
    """
    options = _options(to, format, columns, form, pairs, on_bad_row)
    files, rows = files_or_rows(data)
    if rows is None:
        return _read(convert_files(files, Path(output), options, progress))
    made, report = _convert_rows(rows, "row", options)
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in made)
    except OSError as error:
        raise ResourceError("cannot write", where=str(output), why=str(error), fix="name a new file") from error
    return _read(report)


def convert_rows(
    rows: Iterable[Mapping[str, Any]],
    to: str,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    form: Form = "auto",
    pairs: Pairs = "all",
    on_bad_row: Literal["error", "skip"] = "error",
) -> tuple[list[dict[str, Any]], Conversion]:
    """The same for rows in memory, as a list of new rows and what became of the old ones.

    Raises:
        DataError: a row cannot be converted, no format fits, or no row is left.
        UsageError: there is no such format or column of it, or something is no row.
    """
    files, held = files_or_rows(rows)
    if held is None:
        raise UsageError(f"{files[0]} is a file, not a row", fix="call convert for files")
    made, report = _convert_rows(held, "row", _options(to, format, columns, form, pairs, on_bad_row))
    return [json.loads(row) for row in made], _read(report)


def _options(
    to: str, format: str | None, columns: Mapping[str, str] | None, form: str, pairs: str, on_bad_row: str
) -> str:
    given = {"format": format, "columns": dict(columns or {}), "form": form, "pairs": pairs}
    return json.dumps({"to": to, "on_bad_row": on_bad_row, **given})


def _read(report: str) -> Conversion:
    values = json.loads(report)
    return Conversion(**values | {"bad": {reason: Count(**rows) for reason, rows in values["bad"].items()}})
