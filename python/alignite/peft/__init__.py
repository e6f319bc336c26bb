"""Adapters: the seat that carries them, LoRA, merging, and PEFT's files on disk.

Names load when they are first used, so that ``LoraConfig`` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignite.peft.config import LoraConfig
    from alignite.peft.files import load_adapter, save_adapter
    from alignite.peft.lora import apply_adapter
    from alignite.peft.merge import MergeReport, merge_adapter
    from alignite.peft.seat import adapter_parameters, checkpoint_context_fn, use_adapters

_HOMES = {
    "LoraConfig": "config",
    "MergeReport": "merge",
    "adapter_parameters": "seat",
    "apply_adapter": "lora",
    "checkpoint_context_fn": "seat",
    "load_adapter": "files",
    "merge_adapter": "merge",
    "save_adapter": "files",
    "use_adapters": "seat",
}

__all__ = [
    "LoraConfig",
    "MergeReport",
    "adapter_parameters",
    "apply_adapter",
    "checkpoint_context_fn",
    "load_adapter",
    "merge_adapter",
    "save_adapter",
    "use_adapters",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"alignite.peft.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'alignite.peft' has no attribute {name!r}")
