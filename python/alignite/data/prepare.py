"""From what users have (files, globs, rows) to a prepared set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignite.config import SFTConfig
from alignite.data.files import find_files
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import CheckpointError, DataError, ResourceError

Data = str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]


def prepare_sft(
    data: Data,
    tokenizer: ChatTokenizer,
    config: SFTConfig,
    output_dir: str | Path,
    progress: Callable[[int], None] | None = None,
    expected: str | None = None,
) -> PreparedSet:
    """Prepare rows for supervised fine-tuning, or take the set that is there when nothing has changed.

    Args:
        data: a path, a glob, a folder, a URL, a data set of the hub (``org/name[@revision][:[config:]split]``), a list
            of them, or rows as mappings (a list, a generator, a ``datasets.Dataset``) or a pyarrow table. Files are
            JSONL, JSON arrays, CSV, TSV, webdataset tar (each also as .gz or .zst), Parquet or Arrow; a folder that
            ``datasets`` saved is one data set.
        tokenizer: the model's.
        config: ``max_length``, ``packing``, the columns, ``apply_chat_template``, ``on_bad_row``,
            ``template_date`` and ``num_threads`` are used.
        output_dir: becomes the prepared folder, whole or not at all.
        progress: called with the rows done, about ten times a second and at the end.

        expected: the fingerprint that the set must have; without it the folder stays as it is.

    Raises:
        CheckpointError: the set would have another fingerprint than is expected.
        DataError: a file or row cannot be read (with ``on_bad_row="error"``), or nothing is left to train on.
        TemplateError, MaskError, TokenizerError: the model folder does not suit the data.
        ResourceError: the folder cannot be written.
    """
    preparer = tokenizer.preparer(config)
    folder = Path(output_dir)
    files, rows = resolve_data(data)
    if expected is not None:
        found = preparer.fingerprint_files(files) if rows is None else preparer.fingerprint_rows(rows)
        check_unchanged(found, expected, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            "the output folder cannot be made", where=str(folder.parent), why=str(error), fix="check the path"
        ) from error
    if rows is None:
        report = preparer.prepare_files(files, folder, progress)
    else:
        report = preparer.prepare_rows(rows, "row", folder, progress)
    prepared = PreparedSet(folder)
    prepared.reused = bool(json.loads(report)["reused"])
    return prepared


def check_unchanged(fingerprint: str, expected: str, where: Path) -> None:
    """Whether data are those that a checkpoint was made on.

    Raises:
        CheckpointError: they are not.
    """
    if fingerprint != expected:
        raise CheckpointError(
            "the data has changed since the checkpoint",
            where=str(where),
            why=f"its fingerprint was {expected} and is {fingerprint}",
            fix="bring the old data back, or start in another output_dir",
        )


def resolve_data(data: Data) -> tuple[list[Path], list[bytes] | None]:
    """The files that data names, or its rows as JSON.

    Raises:
        DataError: as :func:`alignite.data.files.find_files`; or something is neither a row nor a path.
    """
    if isinstance(data, str | Path):
        return find_files([data]), None
    # A pyarrow table, batch or reader of batches, without importing pyarrow; iterating one gives columns.
    if hasattr(data, "to_pylist"):
        data = data.to_pylist() if not hasattr(data, "to_batches") else _table_rows(data.to_batches())
    elif hasattr(data, "read_next_batch"):
        data = _table_rows(data)
    paths: list[str | Path] = []
    rows: list[bytes] = []
    for index, item in enumerate(data, start=1):
        if isinstance(item, str | Path) and not rows:
            paths.append(item)
        elif isinstance(item, Mapping) and not paths:
            try:
                rows.append(json.dumps(item, ensure_ascii=False).encode())
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(
                    "a row is not JSON",
                    where=f"row:{index}",
                    why=str(error),
                    fix="give texts, numbers, lists and dicts only",
                ) from error
        else:
            raise DataError(
                f"a row is a {type(item).__name__}, not a mapping",
                where=f"row:{index}",
                fix="give dicts with messages, prompt and completion, or columns that you name; or paths only",
            )
    return (find_files(paths), None) if paths else ([], rows)


def _table_rows(batches: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for batch in batches:
        for start in range(0, batch.num_rows, 1000):
            yield from batch.slice(start, 1000).to_pylist()
