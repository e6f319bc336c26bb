"""Reward models from folders of whole models and of adapters."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from alignite.models.reward_files import load_reward_model
from alignite.peft.score_files import load_score_adapter


def open_reward_model(
    folder: str | Path, base: str | Path | None = None, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[nn.Module, str | Path]:
    """A reward model to score with, a folder of its own or an adapter's, and where its tokenizer is.

    Args:
        folder: as of :func:`alignite.models.reward_files.load_reward_model`, or a PEFT folder, whose adapter is put on
            its base.
        base: the base of an adapter; default: the one that it names. An adapter of the hub is told by it.

    Raises:
        ModelError: as :func:`alignite.models.reward_files.load_reward_model`. AdapterError: as
            :func:`alignite.peft.score_files.load_score_adapter`.
    """
    path = Path(folder)
    is_adapter = (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()
    if base is None and not is_adapter:
        return load_reward_model(folder, dtype=dtype, device=device), folder
    model, home = load_score_adapter(folder, base, dtype=dtype, device=device)
    return model, folder if (path / "tokenizer.json").is_file() else home
