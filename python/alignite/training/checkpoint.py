"""Checkpoints that are whole or not there.

A checkpoint is written into a temporary folder, every file is fsynced, the
manifest with sizes and hashes comes last, and one rename makes it appear. A
reader trusts a folder only after its manifest's hashes hold.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alignite.errors import AligniteError, CheckpointError, ResourceError
from alignite.files import cannot_write, sync_file, sync_folder

log = logging.getLogger("alignite")

MANIFEST = "MANIFEST.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
RANDOM = "random.safetensors"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those that were written."""

    folder: Path
    step: int
    state: dict[str, Any]

    def optimizer(self) -> dict[str, Tensor]:
        return load_file(self.folder / OPTIMIZER)

    def random(self) -> dict[str, Tensor]:
        return load_file(self.folder / RANDOM)


def write_checkpoint(
    run: Path,
    step: int,
    state: dict[str, Any],
    optimizer: dict[str, Tensor],
    random: dict[str, Tensor],
    save_weights: Callable[[Path], None],
) -> Path:
    """Write ``checkpoint-STEP`` of a run.

    Args:
        state: JSON; where the data stands, the objective's state, the configuration.
        save_weights: writes the trained weights into a folder.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; what was there before is untouched.
    """
    target = run / f"{_PREFIX}{step}"
    staging = run / f".{target.name}.tmp"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            save_weights(staging)
            save_file(optimizer, staging / OPTIMIZER)
            save_file(random, staging / RANDOM)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        (staging / STATE).write_text(json.dumps(state | {"step": step}, indent=1, sort_keys=True))
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        entries = {}
        for path in files:
            sync_file(path)
            entries[path.relative_to(staging).as_posix()] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        manifest = {"step": step, "files": entries}
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        sync_file(staging / MANIFEST)
        sync_folder(staging)
        if target.exists():
            _discard(target)
        os.replace(staging, target)
        sync_folder(run)
    except ResourceError:  # of save_weights, which says more than we could
        shutil.rmtree(staging, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise cannot_write(target, error) from error
    return target


def prune(run: Path, keep: int, step: int, best: int | None = None) -> None:
    """Delete all but the newest ``keep`` checkpoints up to ``step``; 0 keeps all. ``best`` stays besides, and what a
    kept one holds for the best.

    Later ones are broken, or resume would have taken them: they are left alone and do not count. A folder is
    renamed before it is deleted, so it goes whole.
    """
    if keep > 0:
        ours = [path for path in list_checkpoints(run) if _step_of(path) <= step]
        # A run may have to go on from any that is kept, and then needs the best one as that one knows it.
        bests = {best, *(_best_of(path) for path in ours[:keep])}
        for folder in ours[keep:]:
            if _step_of(folder) not in bests:
                _discard(folder)


def _best_of(folder: Path) -> int | None:
    try:
        step = json.loads((folder / STATE).read_text()).get("best", {}).get("step")
    except (OSError, ValueError, AttributeError):
        return None
    return step if isinstance(step, int) else None


def set_aside(run: Path, step: int) -> list[str]:
    """Rename the checkpoints later than ``step``, from which nothing goes on any more; says their new names."""
    renamed = []
    for folder in list_checkpoints(run):
        if _step_of(folder) > step:
            number = next(n for n in itertools.count(1) if not (run / f"superseded-{n}-{folder.name}").exists())
            renamed.append(folder.rename(run / f"superseded-{number}-{folder.name}").name)
    return renamed


def sweep(run: Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for pattern in (f".{_PREFIX}*.tmp", f".trash-{_PREFIX}*", ".prepared*.tmp", ".saving.*", ".alignite-check-*"):
        for folder in run.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def _discard(folder: Path) -> None:
    trash = folder.with_name(f".trash-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    os.replace(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def list_checkpoints(run: Path) -> list[Path]:
    """Folders that look like checkpoints, newest step first."""
    found = [path for path in run.glob(f"{_PREFIX}*") if path.is_dir() and _step_of(path) >= 0]
    return sorted(found, key=_step_of, reverse=True)


def _step_of(folder: Path) -> int:
    number = folder.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else -1


def newest_valid(run: Path) -> Checkpoint | None:
    """The newest checkpoint whose files are whole. Broken ones are named in the log, skipped and left alone."""
    for folder in list_checkpoints(run):
        try:
            return read_checkpoint(folder)
        except AligniteError as error:
            log.warning("skipping %s: %s", folder.name, error.why or error.what)
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check a checkpoint's files against its manifest.

    Raises:
        CheckpointError: the manifest or a file is missing, or a file's bytes are not those that were written.
    """

    def invalid(why: str) -> CheckpointError:
        return CheckpointError(
            "the checkpoint is not whole", where=str(folder), why=why, fix="resume from another one with resume=FOLDER"
        )

    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        step, entries = int(manifest["step"]), dict(manifest["files"])
        for name, entry in entries.items():
            path = folder / name
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise invalid(f"the manifest names {name}")
            if not path.is_file():
                raise invalid(f"{name} is missing")
            if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
                raise invalid(f"{name} is not as it was written")
        missing = {STATE, OPTIMIZER, RANDOM} - entries.keys()
        if missing:
            raise invalid(f"the manifest lacks {', '.join(sorted(missing))}")
        state = json.loads((folder / STATE).read_text())
        if state["step"] != step:
            raise invalid(f"the manifest says step {step}, the state {state['step']}")
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise invalid(f"{Path(str(error.filename)).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise invalid(f"the manifest cannot be read: {error!r}") from error
    return Checkpoint(folder, step, state)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def load_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's weight files."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in (OPTIMIZER, RANDOM):
            tensors |= load_file(path)
    return tensors


def versions() -> dict[str, str]:
    """What the numbers depend on, for the record."""
    from importlib.metadata import version

    names = ("alignite", "torch", "transformers", "numpy", "safetensors", "tokenizers")
    return {name: version(name) for name in names} | {"threads": str(torch.get_num_threads())}
