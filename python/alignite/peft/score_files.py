"""Reward models that are an adapter: the folder of a run with LoRA, or of PEFT's SEQ_CLS, opened on its base."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from alignite.data.hub import resolve_model
from alignite.errors import AdapterError, ModelError
from alignite.models.reward_files import head_name, load_reward_model
from alignite.peft.files import CONFIG_FILE, WEIGHTS_FILE, load_adapter, read_config

HEAD = "base_model.model.score.weight"
"""What PEFT calls the trained score head."""


def load_score_adapter(
    folder: str | Path, base: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[nn.Module, str | Path]:
    """The reward model that an adapter makes of its base, in evaluation mode, and the base's folder or hub id.

    The adapter's own score head is used; one that carries none keeps the base's.

    Args:
        folder: a PEFT folder, or a hub id.
        base: the base model; default: the one that adapter_config.json names, a path from the working folder or a hub
            id.

    Raises:
        AdapterError: the adapter names no base, or one that is not there; it has no score head and its base neither; or
            as :func:`alignite.peft.load_adapter`. ModelError: as loading the base does.
    """
    path = resolve_model(folder, "adapter")
    own = base_of(path)
    named = base if base is not None else own
    if named is None:
        raise AdapterError(
            "the adapter names no base model",
            where=str(path / CONFIG_FILE),
            fix="name the base: base= in Python, --base_model on the command line",
        )
    try:
        found = resolve_model(named)
    except ModelError as error:
        if base is not None:
            raise
        raise AdapterError(
            f"the adapter's base model {str(named)!r} is not here",
            where=str(path / CONFIG_FILE),
            why=error.why or error.what,
            fix="name the base: base= in Python, --base_model on the command line",
        ) from error
    heads = score_heads(path)
    has_head = head_name(found) is not None
    if heads is None and not has_head:
        raise AdapterError(
            "the adapter has no score head, and its base has none",
            where=str(path),
            why="it is the adapter of a language model",
            fix="give the adapter of a reward model, which carries `score` among its modules_to_save",
        )
    model = load_reward_model(found, None if has_head else heads, dtype, device)
    load_adapter(model, path)
    model.to(device)
    return model, named


def score_heads(folder: str | Path) -> int | None:
    """How many scores the head of an adapter's folder gives; None when it carries no head."""
    try:
        with safe_open(Path(folder) / WEIGHTS_FILE, "pt") as tensors:
            return int(tensors.get_slice(HEAD).get_shape()[0]) if HEAD in set(tensors.keys()) else None
    except (OSError, SafetensorError):
        return None  # loading says what is wrong


def base_of(folder: Path) -> str | None:
    """The base model that an adapter names, its revision behind ``@``; None when it names none.

    Raises:
        AdapterError: adapter_config.json is missing or damaged.
    """
    fields = read_config(folder)
    name, revision = fields.get("base_model_name_or_path"), fields.get("revision")
    if not isinstance(name, str) or not name:
        return None
    return f"{name}@{revision}" if isinstance(revision, str) and revision and not Path(name).exists() else name
