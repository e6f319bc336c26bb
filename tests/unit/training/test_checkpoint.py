from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alignite.errors import CheckpointError, ResourceError
from alignite.training import checkpoint
from alignite.training.checkpoint import list_checkpoints, newest_valid, prune, read_checkpoint, write_checkpoint


def weights(folder: Path) -> None:
    save_file({"w": torch.arange(100.0)}, folder / "model.safetensors")


def write(run: Path, step: int) -> Path:
    return write_checkpoint(
        run, step, {"step": step}, {"m/w": torch.ones(3)}, {"torch.0": torch.zeros(2, dtype=torch.uint8)}, weights
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    assert folder == tmp_path / "checkpoint-7"
    found = read_checkpoint(folder)
    assert (found.step, found.state) == (7, {"step": 7})
    assert found.optimizer()["m/w"].tolist() == [1, 1, 1]
    assert found.random()["torch.0"].tolist() == [0, 0]
    assert checkpoint.load_weights(folder)["w"].shape == (100,)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    names = {"model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"}
    assert manifest["files"].keys() == names
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-7"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "removed"])
def test_a_damaged_file_is_named_and_its_checkpoint_skipped_but_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, fault: str
) -> None:
    write(tmp_path, 1)
    path = write(tmp_path, 2) / name
    if fault == "flipped":
        flip(path)
    elif fault == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING, "alignite"):
        found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 1
    assert "checkpoint-2" in caplog.text
    assert name in caplog.text
    assert path.parent.is_dir()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path.parent)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        '{"step": 2}',
        '{"step": "x", "files": {}}',
        '{"step": 2, "files": {}}',
        '{"step": 2, "files": {"../../x": {"size": 1, "sha256": ""}}}',
        '{"step": 2, "files": {"state.json": 3}}',
    ],
)
def test_a_manifest_that_is_not_one_is_refused(tmp_path: Path, manifest: str) -> None:
    folder = write(tmp_path, 2)
    (folder / "MANIFEST.json").write_text(manifest)
    with pytest.raises(CheckpointError):
        read_checkpoint(folder)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    (write(tmp_path, 2) / "MANIFEST.json").unlink()
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "nowhere") is None


def test_the_newest_are_kept_and_later_broken_ones_do_not_count(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-10", "checkpoint-9"]
    flip(tmp_path / "checkpoint-100" / "state.json")
    write(tmp_path, 11)
    prune(tmp_path, 0, 11)
    assert len(list_checkpoints(tmp_path)) == 4
    prune(tmp_path, 1, 11)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-11"]
    found = newest_valid(tmp_path)
    assert found is not None
    assert found.step == 11


def test_writing_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    flip(write(tmp_path, 3) / "state.json")
    assert read_checkpoint(write(tmp_path, 3)).step == 3


def test_leftovers_are_swept(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".checkpoint-2.tmp").mkdir()
    (tmp_path / ".trash-checkpoint-0").mkdir()
    checkpoint.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)

    def full(path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint, "sync_file", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        write(tmp_path, 2)
    assert caught.value.exit_code == 6
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1"}


def test_a_file_size_limit_is_a_resource_error_and_not_a_traceback(tmp_path: Path) -> None:
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_checkpoint as t
from alignite.errors import ResourceError
run = Path({str(tmp_path)!r})
t.write(run, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    t.write(run, 2)
except ResourceError as error:
    assert str(run / "checkpoint-2") in str(error), error
    assert "arge" in str(error), error  # File too large
    print([path.name for path in run.iterdir()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "['checkpoint-1']", done.stdout + done.stderr


def test_a_folder_that_cannot_be_made_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="Not a directory"):
        write(tmp_path / "file", 1)


def test_an_error_that_saving_weights_explains_is_passed_on(tmp_path: Path) -> None:
    def refused(folder: Path) -> None:
        raise ResourceError("the adapter cannot be written")

    with pytest.raises(ResourceError, match="the adapter cannot be written"):
        write_checkpoint(tmp_path, 1, {}, {}, {}, refused)
    assert not list(tmp_path.iterdir())
