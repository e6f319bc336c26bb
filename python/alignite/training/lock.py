"""One writer a run folder."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignite.errors import CheckpointError
from alignite.files import cannot_write


def check_free(folder: Path) -> None:
    """Whether nobody writes to a run folder now. Changes nothing.

    Raises:
        CheckpointError: somebody does.
    """
    try:
        with open(folder / ".lock") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                raise _in_use(folder, handle.read()) from error
    except OSError:  # no lock, or no folder: then nobody holds it
        return


def _in_use(folder: Path, holder: str) -> CheckpointError:
    return CheckpointError(
        "another process is writing to this run folder",
        where=str(folder),
        why=holder.strip() or None,
        fix="wait for it, stop it, or choose another output_dir",
    )


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends.

    Raises:
        CheckpointError: another process holds it. ResourceError: the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+")  # noqa: SIM115 - open as long as the lock is held
    except OSError as error:
        raise cannot_write(folder, error) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            raise _in_use(folder, handle.read()) from error
        handle.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}))
        handle.flush()
        yield
