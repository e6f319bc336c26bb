"""From what users have (files, globs, rows) to a prepared set."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from alignite.config import PrepareConfig, SFTConfig
from alignite.config.data import DataOptions
from alignite.data.files import find_files
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer, resolve_date
from alignite.errors import CheckpointError, DataError, ResourceError, UsageError
from alignite.native import data as native
from alignite.native.data import Sources

Config = TypeVar("Config", bound=DataOptions)
# Rows of a selection that are taken at a time.
_SELECTED = 10_000

Data = str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]


def prepare(
    data: Data,
    tokenizer: ChatTokenizer,
    config: SFTConfig | PrepareConfig,
    output_dir: str | Path,
    *,
    kinds: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    part: str | None = None,
    append: bool = False,
    expected: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedSet:
    """Prepare rows, or take the set that is there when nothing has changed.

    One process makes a set: others that ask for the same folder wait and take it. Work that was killed is gone on with
    by the same call.

    Args:
        data: a path, a glob, a folder, a URL, a data set of the hub (``org/name[@revision][:[config:]split]``), a list
            of them, rows as mappings (a list, a generator, a ``datasets.Dataset``), or a table (pyarrow, polars,
            anything with ``__arrow_c_stream__``), which is used in place. Files are JSONL, JSON arrays, CSV, TSV,
            webdataset tar (each also as .gz or .zst), Parquet or Arrow; a folder that ``datasets`` saved is one set.
        tokenizer: the model's.
        config: the options of :class:`alignite.config.DataOptions` and ``num_threads`` are used.
        output_dir: becomes the prepared folder, whole or not at all.
        kinds: records that are taken (conversation, text, preference, ranking, steps, unpaired); default: all.
        shard: (number, of): make every ``of``-th block of rows only; :func:`merge_shards` joins all.
        part: ``train`` or ``validation`` of what ``split_share`` parts; :func:`prepare_split` makes both.
        append: add the data to the set in ``output_dir``; files that it holds, told by their content, are not added
            again.
        expected: the fingerprint that the set must have; without it the folder stays as it is.
        progress: called with the rows and tokens done, about ten times a second and at the end.

    Raises:
        CheckpointError: the set would have another fingerprint than is expected.
        DataError: a file or row cannot be read (with ``on_bad_row="error"``), or nothing is left to train on.
        TemplateError, MaskError, TokenizerError: the model folder does not suit the data.
        ResourceError: the folder cannot be written, or the disk has too little room.
        UsageError: the set cannot be appended to with these options, or the folder holds appended data that these lack;
            ``split_share`` is given without a part.
    """
    started = time.perf_counter()
    if part is None and getattr(config, "split_share", 0.0) > 0:
        raise UsageError("split_share makes two sets", fix="call prepare_split, or name the part: train or validation")
    folder = Path(output_dir)
    config = _dated(config, folder)
    preparer = tokenizer.preparer(config, kinds=kinds, shard=shard, part=part)
    sources, files = resolve_data(data)
    if expected is not None:
        check_unchanged(preparer.fingerprint(sources), expected, folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            "the output folder cannot be made", where=str(folder.parent), why=str(error), fix="check the path"
        ) from error
    check_room(files, folder, shard[1] if shard else 1)
    report = json.loads(preparer.prepare(sources, folder, progress, append))
    prepared = PreparedSet(folder)
    prepared.reused = bool(report["reused"])
    rows, tokens = report.get("work", (0, 0))
    prepared.work = (rows, tokens, time.perf_counter() - started)
    return prepared


def prepare_split(
    data: Data,
    tokenizer: ChatTokenizer,
    config: PrepareConfig,
    output_dir: str | Path,
    *,
    kinds: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    append: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[PreparedSet, PreparedSet]:
    """Prepare the rows that ``split_share`` leaves and those that it holds out, in ``train`` and ``validation``.

    A row's side is told by a hash of its content, after duplicates are gone, so it stays when data are added.

    Raises:
        DataError, ResourceError, UsageError: as :func:`prepare`. UsageError: the folder holds a set that is not split.
    """
    folder = Path(output_dir)
    if (folder / "report.json").exists():
        raise UsageError(
            "the folder holds a set that is not split",
            where=str(folder),
            why="train and validation would stand inside of it, and whoever reads the folder would get the old set",
            fix="choose another output_dir, or leave out split_share",
        )
    folders = [folder / part for part in ("train", "validation")]
    config = _dated(config, *folders)
    sets = [
        prepare(
            data, tokenizer, config, path, kinds=kinds, shard=shard, part=path.name, append=append, progress=progress
        )
        for path in folders
    ]
    return sets[0], sets[1]


def _dated(config: Config, *folders: Path) -> Config:
    """With the date that templates see: the one given, that of a set which is there or begun, or today."""
    if config.template_date is not None:
        return config
    dates = (date for folder in folders for date in _dates(folder))
    year, month, day = resolve_date(next(dates, None))
    return replace(config, template_date=f"{year:04}-{month:02}-{day:02}")


def _dates(folder: Path) -> Iterator[str]:
    staging = folder.with_name(f".{folder.name}.preparing")
    for path in (
        folder / "report.json",
        folder.with_name(f".{folder.name}.old") / "report.json",
        staging / "progress.json",
    ):
        try:
            read = json.loads(path.read_text(encoding="utf-8"))
            date = read.get("report", read).get("template_date")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(date, str):
            yield date


def prepare_sft(
    data: Data,
    tokenizer: ChatTokenizer,
    config: SFTConfig | PrepareConfig,
    output_dir: str | Path,
    progress: Callable[[int, int], None] | None = None,
    expected: str | None = None,
) -> PreparedSet:
    """Prepare rows for supervised fine-tuning: :func:`prepare` for conversations and texts only.

    Raises:
        UsageError: rows are records of another kind, such as preferences. And what :func:`prepare` raises.
    """
    kinds = ("conversation", "text")
    return prepare(data, tokenizer, config, output_dir, kinds=kinds, expected=expected, progress=progress)


def merge_shards(folders: Sequence[str | Path], output_dir: str | Path) -> PreparedSet:
    """Join all shards of a set to the very set that one machine would have made.

    Args:
        folders: the shards 0/N to N-1/N, in any order, made anywhere from the same files with the same options.
        output_dir: becomes the prepared folder, whole or not at all.

    Raises:
        UsageError: a shard is missing or given twice, or they are of different sets.
        DataError: a shard is damaged. ResourceError: the folder cannot be written.
    """
    started = time.perf_counter()
    report = json.loads(native.merge_prepared([Path(folder) for folder in folders], Path(output_dir)))
    prepared = PreparedSet(output_dir)
    prepared.reused = bool(report["reused"])
    prepared.work = (0, 0, time.perf_counter() - started)
    return prepared


# Bytes of a prepared set for each byte of a file, at the least: 8 bytes of ids and labels a token, and hardly any text
# has more than 6 bytes a token; compressed text is at least twice as long when it is unpacked.
_LEAST_GROWTH, _COMPRESSED = 1.0, 2.0


def check_room(files: Sequence[Path], folder: Path, shards: int = 1) -> None:
    """Whether the disk can hold what these files become, told from their sizes before any work is done.

    Raises:
        ResourceError: it cannot, not even when texts have few tokens and half of each row is columns that are not read.
    """
    size = 0.0
    for file in files:
        paths = list(file.rglob("*")) if file.is_dir() else [file]
        for path in paths:
            growth = _COMPRESSED if path.suffix in (".gz", ".zst", ".parquet") else _LEAST_GROWTH
            size += growth * path.stat().st_size if path.is_file() else 0
    place = folder.parent
    free = shutil.disk_usage(place).free
    if size > 1 << 16 and free < size / 2 / shards:
        raise ResourceError(
            "the disk has too little room for the prepared set",
            where=str(place),
            why=f"{free / 1e9:.1f} GB are free, the set takes at least {size / 2 / shards / 1e9:.1f} GB",
            fix="choose an output_dir on another disk, or prepare the data in shards",
        )


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


def resolve_data(data: Data) -> tuple[Sources, list[Path]]:
    """What data names, and its files when it names files.

    Raises:
        DataError: as :func:`files_or_rows`.
    """
    table = arrow_of(data)
    if table is not None:
        return Sources.table(table, "row"), []
    files, rows = files_or_rows(data)
    return (Sources.files(files) if rows is None else Sources.rows(rows, "row")), files


def files_or_rows(data: Data) -> tuple[list[Path], list[bytes] | None]:
    """The files that data names, or its rows as JSON: dates and bytes as Arrow columns of them are read.

    Raises:
        DataError: as :func:`alignite.data.files.find_files`; or something is neither a row nor a path.
    """
    if isinstance(data, str | Path):
        return find_files([data]), None
    # A pyarrow table or batch, without importing pyarrow; iterating one gives columns.
    items: Iterable[Any] = data.to_pylist() if hasattr(data, "to_pylist") else data
    paths: list[str | Path] = []
    rows: list[bytes] = []
    for index, item in enumerate(items, start=1):
        if isinstance(item, str | Path) and not rows:
            paths.append(item)
        elif isinstance(item, Mapping) and not paths:
            try:
                rows.append(_json(item))
            except (TypeError, ValueError, RecursionError) as error:
                raise DataError(
                    "a row is not JSON",
                    where=f"row:{index}",
                    why=str(error),
                    fix="give texts, numbers, lists and dicts only",
                ) from error
        elif isinstance(item, str | Path | Mapping):
            raise DataError(
                "rows and paths are given together",
                where=f"row:{index}",
                fix="give paths only, or mappings only: prepare one of them and add the other with append",
            )
        else:
            raise DataError(
                f"a row is a {type(item).__name__}, not a mapping",
                where=f"row:{index}",
                fix="give dicts with messages, prompt and completion, or columns that you name; or paths only",
            )
    return (find_files(paths), None) if paths else ([], rows)


def _json(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair: written as its escape, which is then a bad row like any other.
        return json.dumps(row, default=_plain).encode()


def _plain(value: Any) -> Any:
    """What Python has and JSON has not, as the same columns of a table are read."""
    if isinstance(value, datetime):
        return (value if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    if isinstance(value, date | time_of_day):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode(errors="surrogateescape")
    if hasattr(value, "tolist"):  # numpy
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it holds a {type(value).__name__}")


def arrow_of(data: Any) -> Any:
    """The Arrow table behind data: itself, or what a ``datasets.Dataset`` holds, its selection applied; else None."""
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return data
    table = getattr(getattr(data, "data", None), "table", None)
    is_dataset = getattr(data, "_format_type", None) is None and hasattr(data, "column_names")
    if not is_dataset or not hasattr(table, "__arrow_c_stream__"):
        return None
    if getattr(data, "_indices", None) is None or not len(data):
        return table
    return import_module("pyarrow").concat_tables(list(data.with_format("arrow").iter(_SELECTED)))
