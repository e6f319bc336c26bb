"""Data at URLs (``s3://``, ``https://``, ``memory://``, ...): copied to the cache through ``fsspec``, read there."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

from alignite.errors import AligniteError, DataError
from alignite.files import cannot_write, write_file

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")
# What a store may say of a file that changes when the file does.
_VALIDATORS = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "last_modified", "mtime", "created")
_LOCAL = {"memory", "file", "local"}


def is_url(text: str) -> bool:
    """Whether a text names data by a protocol."""
    return _URL.match(text) is not None


def cache_folder() -> Path:
    """Where copies are kept: ``$XDG_CACHE_HOME/alignite/remote``, else below ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "alignite" / "remote"


def fetch(url: str) -> list[Path]:
    """Copies of the files that a URL names, sorted by their names; ``*`` stands for any part of a name.

    A copy is made again when the store says another size, time or tag of the file; where it tells nothing but the
    size, each time. Offline the newest copy is taken.

    Raises:
        DataError: ``fsspec`` or what it needs for the protocol is not installed, nothing is there, or it cannot be
            reached and there is no copy.
        ResourceError: the cache cannot be written.
    """
    home = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:32]
    listing = home / "files.json"
    if _is_offline() and url.partition("://")[0] not in _LOCAL:
        with contextlib.suppress(OSError, ValueError):
            copies = [home / name for name in json.loads(listing.read_text(encoding="utf-8"))]
            if copies and all(copy.is_file() for copy in copies):
                return copies
        raise _unreachable(url, "HF_HUB_OFFLINE is set, and there is no copy")
    store, path = _store(url)
    try:
        names = sorted(store.glob(path)) if "*" in path else [path]
        copies = [_copy(store, name, home, url) for name in names if store.isfile(name)]
    except AligniteError:
        raise
    except Exception as error:  # each store raises its own kinds
        raise _unreachable(url, f"{type(error).__name__}: {error}") from error
    if not copies:
        raise DataError(f"no data file {url!r}", fix="check the URL; folders are given as .../*.jsonl")
    write_file(listing, json.dumps([str(copy.relative_to(home)) for copy in copies]))
    return copies


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _unreachable(url: str, why: str) -> DataError:
    return DataError(
        f"cannot read {url!r}", why=why, fix="check the URL, the network and your credentials; or copy the file here"
    )


def _store(url: str) -> tuple[Any, str]:
    try:
        fsspec: Any = importlib.import_module("fsspec")
    except ImportError as error:
        raise DataError(f"{url!r} needs the fsspec package", fix="pip install fsspec; or copy the file here") from error
    try:
        store, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(
            f"{url!r} needs another package", why=str(error), fix="install it; or copy the file here"
        ) from error
    except Exception as error:  # an unknown protocol is a ValueError, wrong credentials are the store's own kinds
        raise _unreachable(url, str(error)) from error
    return store, path


def _copy(store: Any, name: str, home: Path, url: str) -> Path:
    about = store.info(name)
    size = about.get("size")
    told = {key: str(about[key]) for key in _VALIDATORS if about.get(key)}
    key = hashlib.sha256(json.dumps([name, size, told], sort_keys=True).encode()).hexdigest()[:32]
    copy = home / key / (Path(name.partition("?")[0]).name or "data")
    if told and copy.is_file() and size in (None, copy.stat().st_size):
        return copy
    staged = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    try:
        with store.open(name, "rb") as source, _opened(staged) as target:
            while block := source.read(1 << 20):
                try:
                    target.write(block)
                except OSError as error:
                    raise cannot_write(copy, error) from error
        if size is not None and staged.stat().st_size != size:
            raise _unreachable(url, f"{staged.stat().st_size} of {size} bytes came")
        staged.replace(copy)
    finally:
        with contextlib.suppress(OSError):
            staged.unlink()
    return copy


def _opened(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise cannot_write(path, error) from error
