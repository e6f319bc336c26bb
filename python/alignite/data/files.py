"""From names (paths, globs, folders, URLs, data sets of the hub) to files that the Rust core reads."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterable
from pathlib import Path

from alignite.data.hub_access import HubName, taken_for_path, why_no_hub
from alignite.data.hub_rows import resolve_rows
from alignite.data.remote import fetch, is_url
from alignite.errors import DataError

# What is taken from a folder: a kind's ending, and one more of a compressor.
_KINDS = re.compile(
    r"[^.].*\.((jsonl|ndjson|json|csv|tsv|tar)(\.(gz|gzip|zst|zstd))?|tgz|parquet|arrow|feather)", re.IGNORECASE
)
# Written beside data by ``datasets``, and no data themselves.
_BESIDE = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


def find_files(patterns: Iterable[str | Path], *, needs_split: bool = False) -> list[Path]:
    """The files that paths, globs, folders, URLs and the hub's data sets name, each one's in sorted order.

    A folder stands for the data files in it (not for those in folders below: that is ``folder/**/*.jsonl``), but one
    that ``Dataset.save_to_disk`` wrote is one data set and is given as the folder.

    Args:
        patterns: a path wins over a glob and a glob over a name of the hub; a ``Path`` is never such a name, nor a URL.
        needs_split: refuse a name of the hub without its split, instead of taking ``train``.

    Raises:
        DataError: a pattern matches nothing; a saved ``DatasetDict`` has several splits; see
            :func:`alignite.data.hub_rows.resolve_rows` and :func:`alignite.data.remote.fetch`.
        ResourceError: a cache cannot be written.
    """
    files: list[Path] = []
    for pattern in patterns:
        text = str(pattern)
        if isinstance(pattern, str) and is_url(pattern):
            files += fetch(pattern)
            continue
        if glob.has_magic(text) and not Path(text).exists():
            found = _matches(text)
        elif Path(text).is_dir():
            found = _folder(Path(text))
        else:
            found = [Path(text)] if Path(text).exists() else []
        hub = HubName.parse(pattern, rows=True) if isinstance(pattern, str) and not Path(text).exists() else None
        if hub is not None and not taken_for_path(hub):
            if needs_split and hub.split is None:
                raise DataError(
                    f"{text} names no split", why="without one it is the train split", fix=f"write {text}:test, say"
                )
            found = [resolve_rows(hub)]
        if not found:
            raise DataError(
                f"no data file {text!r}",
                why=why_no_hub(hub) if hub is not None else None,
                fix=f"check the path; for the hub's data set write {text}:SPLIT"
                if hub is not None
                else "check the path or the glob; a data set of the hub is org/name, org/name:split or "
                "org/name:config:split",
            )
        files += found
    return files


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file()


def _matches(pattern: str) -> list[Path]:
    """Files, and saved data sets as a whole; plain folders match by what is in them."""
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    return [path for path in found if (_is_saved(path) if path.is_dir() else not _is_saved(path.parent))]


def _folder(folder: Path) -> list[Path]:
    if _is_saved(folder):
        return [folder]
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        try:
            names = json.loads(splits.read_text(encoding="utf-8"))["splits"]
            found = [folder / str(name) for name in names]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                "the saved data set cannot be read", where=str(splits), why=repr(error), fix="save the data set again"
            ) from error
        if len(found) > 1:
            raise DataError(
                f"the folder holds {len(found)} splits",
                where=str(folder),
                fix="name one: " + ", ".join(str(path) for path in found),
            )
        return found
    files = (path for path in folder.iterdir() if _KINDS.fullmatch(path.name) and path.name not in _BESIDE)
    return sorted(path for path in files if path.is_file())
