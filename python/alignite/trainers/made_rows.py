"""Rows that an objective makes of the data, written to a file that is then prepared like any other."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.data.convert import convert
from alignite.errors import AligniteError, DataError, UsageError
from alignite.files import cannot_write, write_file
from alignite.objectives.odd_rows import WEIGHTLESS

if TYPE_CHECKING:
    from alignite.config import PreferenceConfig
    from alignite.types import RowMaker

log = logging.getLogger("alignite")


@dataclass
class _Lines:
    """The rows of a JSONL file that count, read anew each time.

    ``weightless``: those whose weight is 0. ``unread``: by a column's name, the others that say something in it.
    """

    path: Path
    columns: Sequence[str] = ()
    weightless: int = 0
    unread: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.weightless, self.unread = 0, {}
        with open(self.path, encoding="utf-8") as file:
            for row in map(json.loads, file):
                if row.get("weight") == 0:
                    self.weightless += 1
                    continue
                for name in self.columns:
                    if row.get(name) not in (None, _SAYS_NOTHING[name]):
                        self.unread[name] = self.unread.get(name, 0) + 1
                yield row


_SAYS_NOTHING = {"weight": 1, "margin": 0}
"""By a column's name, its value that is the same as none."""


def made_file(prepared: Path) -> Path:
    """Where the rows stand that a prepared set's objective made, if it made any."""
    return prepared.with_name(f"{prepared.name}-rows.jsonl")


def make_rows(data: Any, maker: RowMaker, config: PreferenceConfig, output: Path) -> tuple[Path, PreferenceConfig]:
    """Write what an objective makes of data, a row at a time, and give the options that the new rows are read with.

    Args:
        data: what :func:`alignite.data.prepare.prepare` takes.
        output: a JSONL file, replaced when it is there.

    Rows that cannot be used are counted by their reason in a file beside the output, which :func:`unmade` reads; with
    ``on_bad_row: error`` they are raised, but for those whose weight is 0. What the objective does not read of the
    rows is counted there as well, for :func:`unread`.

    Raises:
        UsageError: the data have another format than the objective makes rows of. DataError: a row cannot be read, or
            none is left. ResourceError: a file cannot be written.
    """
    source, unfinished = (output.with_name(f".{output.name}.{part}") for part in ("source", "tmp"))
    columns = config.column_names() | ({"prompt": config.prompt_column} if config.prompt_column else {})
    bad: dict[str, int] = {}

    def refuse(error: DataError) -> None:
        if config.on_bad_row == "error":
            raise error
        bad[error.what] = bad.get(error.what, 0) + 1

    written, lines = 0, _Lines(source, getattr(maker, "unread", ()))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        source.unlink(missing_ok=True)
        try:
            done = convert(
                data,
                maker.takes,
                source,
                format=config.format,
                columns=columns,
                form="messages" if maker.makes == "conversation" else "auto",
                pairs="best-worst",
                on_bad_row=config.on_bad_row,  # type: ignore[arg-type]
            )
        except UsageError as error:
            raise UsageError(
                f"{type(maker).__name__} makes its rows of {maker.takes} rows",
                why=error.what,
                fix="give such rows; quark takes a rated reply as a ranking of one; marked rows with num_quantiles 0",
            ) from error
        with open(unfinished, "w", encoding="utf-8") as file:
            for row in maker.rows(lines, refuse):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
        os.replace(unfinished, output)
    except AligniteError:
        raise
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        source.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)
    lost: dict[str, Any] = {
        reason: {"count": rows.count, "examples": list(rows.examples)} for reason, rows in done.bad.items()
    }
    bad |= {WEIGHTLESS: lines.weightless} if lines.weightless else {}
    said = {f"a {name} that this method does not read": count for name, count in lines.unread.items()}
    kept, noticed = (
        {reason: {"count": count, "examples": [f"{count} of {done.rows} rows"]} for reason, count in counts.items()}
        for counts in (bad, said)
    )
    lost |= kept
    report = {"unmade": lost, "unread": noticed}
    write_file(_report(output), json.dumps(report, ensure_ascii=False, indent=1))
    if not written:
        why = "; ".join(f"{entry['count']} rows: {reason}" for reason, entry in lost.items())
        raise DataError("no row is left to make others of", where=str(output), why=why or None, fix="give other rows")
    log.info("%d rows made of %d", written, done.rows)
    return output, replace(config, format=None, columns=[], prompt_column=None, completion_column=None)


def unmade(output: Path) -> dict[str, dict[str, Any]]:
    """By reason, how many rows made none, and the first of them; nothing where no rows were made."""
    return _told(output, "unmade")


def unread(output: Path) -> dict[str, dict[str, Any]]:
    """By what it is, how many rows say something that the objective does not read."""
    return _told(output, "unread")


def _told(output: Path, what: str) -> dict[str, dict[str, Any]]:
    report = _report(output)
    if not report.exists():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(report.read_text(encoding="utf-8")).get(what, {})
    return found


def _report(output: Path) -> Path:
    return output.with_suffix(".json")
