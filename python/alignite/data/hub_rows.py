"""Data sets of the Hugging Face hub where a file is taken: each split becomes a JSONL file in the cache.

Everything else then sees a file: rows are never held in memory, errors and reports name a line that can be looked at,
and the file is there when the hub is not. A file belongs to one commit, so it never changes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignite.data.hub_access import HubName, hub_errors, repo_info, unreachable
from alignite.errors import DataError
from alignite.files import cannot_write, write_file

log = logging.getLogger("alignite")

DEFAULT_SPLIT = "train"


def resolve_rows(hub: HubName) -> Path:
    """The JSONL file of one split: the cached one, or one made through the ``datasets`` package.

    Raises:
        DataError: ``datasets`` is not installed, there is no such data set, revision, config or split, a row is not
            JSON, or the hub cannot be reached.
        ResourceError: the cache cannot be written.
    """
    home = _cache() / "alignite" / hub.repo.replace("/", "--")
    ref = home / "refs" / (hub.revision or "main").replace("/", "--")
    # What a branch meant at first it means until the folder is deleted: for every split, and when a run is resumed.
    known = ref.read_text(encoding="utf-8").strip() if ref.is_file() else None
    if known is not None and (home / _file_of(hub, known)).is_file():
        return home / _file_of(hub, known)
    if find_spec("datasets") is None:
        raise DataError(
            f"the data set {hub.repo} needs the datasets package",
            fix="pip install 'alignite[datasets]'; or give a JSONL file",
        )
    reason = unreachable()
    if reason is not None:
        return _from_copy(hub, home, reason)
    with hub_errors(hub, DataError, "data set"):
        sha = repo_info(replace(hub, revision=known or hub.revision), "dataset")["sha"]
        file = home / _file_of(hub, sha)
        if not file.is_file():
            _write(_load(hub, sha, offline=False), file, hub)
        write_file(ref, sha)
    return file


def _cache() -> Path:
    from huggingface_hub import constants

    given = os.environ.get("HF_DATASETS_CACHE")
    return Path(given).expanduser() if given else Path(constants.HF_HOME) / "datasets"


def _file_of(hub: HubName, commit: str) -> str:
    return "/".join([commit, *([hub.config] if hub.config else []), f"{hub.split or DEFAULT_SPLIT}.jsonl"])


def _from_copy(hub: HubName, home: Path, reason: str) -> Path:
    """Without the hub: the newest copy that ``datasets`` keeps, which cannot be asked for by revision."""
    if hub.revision is None and any(_cache().glob(f"{hub.repo.partition('/')[0]}___*")):
        try:
            rows = _load(hub, None, offline=True)
        except (OSError, ValueError) as error:
            reason = f"{reason}; the cache of datasets: {error}"
        else:
            commit = Path(rows.cache_files[0]["filename"]).parent.name if rows.cache_files else "empty"
            file = home / _file_of(hub, commit)
            if not file.is_file():
                _write(rows, file, hub)
            return file
    raise DataError(
        "the data set is not in the cache, and the hub cannot be reached",
        where=hub.pinned,
        why=reason,
        fix=f"give a JSONL file; or run the same command once where there is a network, and copy {_cache()}",
    )


def _load(hub: HubName, sha: str | None, *, offline: bool) -> Any:
    import datasets

    split = hub.split or DEFAULT_SPLIT
    with _datasets_config(datasets, offline):
        try:
            return datasets.load_dataset(hub.repo, hub.config, split=split, revision=sha)
        except datasets.exceptions.DatasetGenerationError as error:
            raise DataError(
                "the data set's files cannot be read",
                where=hub.pinned,
                why=" ".join(str(error.__cause__ or error).split())[:500],
                fix="name a config or a revision that datasets can read, or give a JSONL file",
            ) from error
        except ValueError as error:  # a config that is missing or unknown, a split that is not there
            if offline:
                raise
            raise DataError(
                f"the data set has no split {split!r}" + (f" of config {hub.config!r}" if hub.config else ""),
                where=hub.pinned,
                why=" ".join(str(error).split()),
                fix=f"write {hub.pinned}:SPLIT or {hub.pinned}:CONFIG:SPLIT",
            ) from error


@contextmanager
def _datasets_config(datasets: Any, offline: bool) -> Iterator[None]:
    """No counting of downloads; and where the hub was found unreachable, no waiting for it. As before afterwards."""
    config = datasets.config
    before = config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_HUB_OFFLINE
    config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_HUB_OFFLINE = False, offline or config.HF_HUB_OFFLINE
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS, config.HF_HUB_OFFLINE = before


def _write(rows: Any, file: Path, hub: HubName) -> None:
    """Write rows one by one; the file appears whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    log.warning("writing %d rows of %s to %s", len(rows), hub.pinned, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            for number, row in enumerate(rows, start=1):
                handle.write(_json(row, f"{hub.pinned}:{number}"))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise cannot_write(file, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _json(row: Any, where: str) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            "a row is not JSON",
            where=where,
            why=str(error),
            fix="alignite reads text; leave out columns of images, audio and dates, and give the rest as JSONL",
        ) from error
