"""Writing files so that a reader sees the old or the new content, whole, even after a power cut."""

from __future__ import annotations

import os
from pathlib import Path

from alignite.errors import ResourceError


def write_file(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content``: temporary file beside it, fsync, rename, fsync of the folder.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make a file that a library wrote durable, with the mode that the umask asks for.

    safetensors writes files that only their owner can read.
    """
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def cannot_write(path: Path, error: OSError) -> ResourceError:
    """The typed error for an operating-system error while writing ``path``."""
    return ResourceError(
        "cannot write" if error.errno is None else f"cannot write: {os.strerror(error.errno)}",
        where=str(path),
        why=(str(error) or None) if error.errno is None else None,
        fix="check that the folder exists, is writable and has free space",
    )
