"""From what users have (files, globs, rows) to a prepared set."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from alignite.config import SFTConfig
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, ResourceError

Data = str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]


def prepare_sft(
    data: Data,
    tokenizer: ChatTokenizer,
    config: SFTConfig,
    output_dir: str | Path,
    progress: Callable[[int], None] | None = None,
) -> PreparedSet:
    """Prepare rows for supervised fine-tuning, or take the set that is there when nothing has changed.

    Args:
        data: a path, a glob, a list of them, or rows as mappings (a list, a generator, a ``datasets.Dataset``).
        tokenizer: the model's.
        config: ``max_length``, ``packing``, the columns, ``apply_chat_template``, ``on_bad_row``,
            ``template_date`` and ``num_threads`` are used.
        output_dir: becomes the prepared folder, whole or not at all.
        progress: called with the rows done, about ten times a second and at the end.

    Raises:
        DataError: a file or row cannot be read (with ``on_bad_row="error"``), or nothing is left to train on.
        TemplateError, MaskError, TokenizerError: the model folder does not suit the data.
        ResourceError: the folder cannot be written.
    """
    preparer = tokenizer.preparer(config)
    folder = Path(output_dir)
    files, rows = _resolve(data)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError("the output folder cannot be made", where=str(folder.parent), why=str(error)) from error
    if rows is None:
        report = preparer.prepare_files(files, folder, progress)
    else:
        report = preparer.prepare_rows(rows, "row", folder, progress)
    prepared = PreparedSet(folder)
    prepared.reused = bool(json.loads(report)["reused"])
    return prepared


def find_files(patterns: Iterable[str | Path]) -> list[Path]:
    """The files that paths and globs name, each glob's in sorted order.

    Raises:
        DataError: a pattern matches nothing.
    """
    files: list[Path] = []
    for pattern in patterns:
        text = str(pattern)
        if glob.has_magic(text) and not Path(text).exists():
            found = sorted(Path(name) for name in glob.glob(text, recursive=True))
        elif Path(text).is_dir():
            found = sorted(p for p in Path(text).iterdir() if p.name.endswith((".jsonl", ".jsonl.gz", ".json")))
        else:
            found = [Path(text)] if Path(text).exists() else []
        if not found:
            hint = "datasets of the hub are not fetched" if text.count("/") == 1 and "." not in text else None
            raise DataError(f"no data file {text!r}", why=hint, fix="check the path or the glob")
        files += found
    return files


def _resolve(data: Data) -> tuple[list[Path], list[bytes] | None]:
    if isinstance(data, str | Path):
        return find_files([data]), None
    items = list(data)
    if items and all(isinstance(item, str | Path) for item in items):
        return find_files([item for item in items if isinstance(item, str | Path)]), None
    rows = []
    for index, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise DataError(
                f"a row is a {type(item).__name__}, not a mapping",
                where=f"row:{index}",
                fix="give dicts with messages, prompt and completion, or columns that you name",
            )
        try:
            rows.append(json.dumps(item, ensure_ascii=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError("a row is not JSON", where=f"row:{index}", why=str(error)) from error
    return [], rows
