"""Rows that an objective makes of the data, written to a file that is then prepared like any other."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.data.convert import convert
from alignite.errors import AligniteError, DataError, UsageError
from alignite.files import cannot_write

if TYPE_CHECKING:
    from alignite.config import PreferenceConfig
    from alignite.types import RowMaker

log = logging.getLogger("alignite")


@dataclass(frozen=True)
class _Lines:
    """The rows of a JSONL file, read anew each time."""

    path: Path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with open(self.path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def make_rows(data: Any, maker: RowMaker, config: PreferenceConfig, output: Path) -> tuple[Path, PreferenceConfig]:
    """Write what an objective makes of data, a row at a time, and give the options that the new rows are read with.

    Args:
        data: what :func:`alignite.data.prepare.prepare` takes.
        output: a JSONL file, replaced when it is there.

    Rows that cannot be used are counted and logged by their reason, or, with ``on_bad_row: error``, raised.

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

    written = 0
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
                fix="give such rows; quark takes rows that have their markers with num_quantiles 0",
            ) from error
        with open(unfinished, "w", encoding="utf-8") as file:
            for row in maker.rows(_Lines(source), refuse):
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
    for reason, rows in done.bad.items():
        log.warning("%d rows make none: %s (first: %s)", rows.count, reason, rows.examples[0])
    for reason, count in bad.items():
        log.warning("%d rows make none: %s", count, reason)
    if not written:
        raise DataError("no row is left to make others of", where=str(output), fix="see the warnings above")
    log.info("%d rows made of %d", written, done.rows)
    return output, replace(config, format=None, columns=[], prompt_column=None, completion_column=None)
