"""Which checkpoint a run goes on from, and what may have changed since."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignite.config import TrainingConfig
from alignite.errors import CheckpointError
from alignite.peft import LoraConfig
from alignite.training import distributed
from alignite.training.checkpoint import Checkpoint, list_checkpoints, newest_valid, read_checkpoint

log = logging.getLogger("alignite")

# Logging, saving and where things stand do not change what is computed.
_FREE = {"logging_steps", "save_steps", "save_total_limit", "eval_steps", "eval_data", "per_device_eval_batch_size"}
# How an update is split over ranks and micro-batches is free too, as long as its size (global_batch_size) stays.
_FREE |= {"per_device_train_batch_size", "gradient_accumulation_steps", "micro_batch_tokens"}
# So are what is watched and told, and which of the checkpoints the run ends with.
_FREE |= {"load_best_model_at_end", "early_stopping_patience", "early_stopping_threshold"}
_FREE |= {"metric_for_best_model", "greater_is_better"}
_FREE |= {"trackers", "project", "run_name", "num_samples", "sample_prompts", "sample_tokens"}
_FREE |= {"output_dir", "resume", "num_threads", "device", "data", "model", "logits_chunk_size"}


def find(run: Path, args: TrainingConfig) -> Checkpoint | None:
    """The checkpoint that ``args.resume`` (auto, never, or a folder) means; None for a fresh start.

    Raises:
        CheckpointError: the folder given is not a whole checkpoint; every checkpoint of the run is broken; or
            ``never`` in a folder that holds a run.
    """
    present = list_checkpoints(run)
    if args.resume == "never":
        if present:
            raise CheckpointError(
                f"the folder holds a run, up to {present[0].name}",
                where=str(run),
                fix="choose another output_dir, delete this one, or leave resume on auto to continue",
            )
        return None
    saved = newest_valid(run) if args.resume == "auto" else read_checkpoint(Path(args.resume))
    if saved is None and present:
        raise CheckpointError(
            f"none of the {len(present)} checkpoints is whole",
            where=str(run),
            fix="choose another output_dir, or delete them to start afresh",
        )
    if saved is not None:
        log.warning("going on from %s", saved.folder.name if saved.folder.parent == run else saved.folder)
    return saved


def saved_config(
    args: TrainingConfig, peft_config: LoraConfig | None, model: Path | None, method: str
) -> dict[str, Any]:
    """The configuration as a checkpoint keeps it, with what decides the run besides: method, update's size, base."""
    size = args.per_device_train_batch_size * args.gradient_accumulation_steps * distributed.world()
    adapter = None if peft_config is None else asdict(peft_config)
    base = None if model is None else model_fingerprint(model)
    return args.to_dict() | {
        "method": method,
        "peft_config": adapter,
        "global_batch_size": size,
        "model_fingerprint": base,
    }


def model_fingerprint(folder: Path) -> str:
    """A hash of a model folder's config, and of its weight files' sizes and of 16 blocks spread over each.

    Another model's weights differ nearly everywhere, so blocks tell it apart without reading all of it.
    """
    found = hashlib.sha256()
    for path in sorted((*folder.glob("config.json"), *folder.glob("*.safetensors"))):
        size = path.stat().st_size
        found.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as handle:
            for block in range(16):
                handle.seek(size * block // 16)
                found.update(handle.read(65536))
    return found.hexdigest()[:32]


def check(saved: Checkpoint, config: dict[str, Any]) -> None:
    """Refuse a change that would make the run another one.

    Raises:
        CheckpointError: names each field, its old and its new value.
    """
    before: dict[str, Any] = saved.state["config"]
    if before.get("method") != config.get("method"):  # then most options differ, which says nothing more
        raise CheckpointError(
            "the run in this folder was made by another method",
            where=str(saved.folder),
            why=f"by {before.get('method')}, not by {config.get('method')}",
            fix="choose another output_dir",
        )
    changed = []
    for name in sorted(before.keys() | config.keys()):
        old, new = before.get(name), config.get(name)
        longer = name in ("max_steps", "num_train_epochs") and old is not None and new is not None and new >= old
        if old != new and name not in _FREE and not longer:
            changed.append(f"{name}: {old!r} -> {new!r}")
    if changed:
        raise CheckpointError(
            "the configuration is not the one that the checkpoint was made with",
            where=str(saved.folder),
            why="; ".join(changed),
            fix="set these back to continue, or choose another output_dir",
        )
