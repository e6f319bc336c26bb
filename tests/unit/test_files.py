from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from alignite import files
from alignite.errors import ResourceError


def test_content_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    files.write_file(path, "é\n")
    files.write_file(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_what_fails_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_file(path, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device") as caught:
        files.write_file(path, "new")
    assert caught.value.where == str(path)
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_synced_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o600)
    before = os.umask(0o027)
    try:
        files.sync_file(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_error_without_a_number_keeps_its_words(tmp_path: Path) -> None:
    assert "header too large" in str(files.cannot_write(tmp_path, OSError("header too large")))
