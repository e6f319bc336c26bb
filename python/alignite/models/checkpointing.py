"""Gradient checkpointing: recompute layers in backward instead of keeping their activations."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

ContextFn = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


def enable_gradient_checkpointing(model: nn.Module, context_fn: ContextFn | None = None) -> None:
    """Turn on non-reentrant checkpointing of each decoder layer.

    Args:
        model: a transformers model.
        context_fn: gives the contexts of the forward pass and of its recomputation, so that the recomputation
            sees the adapters that were active; see :func:`alignite.peft.checkpoint_context_fn`.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if context_fn is not None:
        options["context_fn"] = context_fn
    inner: Any = model
    if hasattr(inner, "activation_checkpointing_enable"):  # transformers' new name; the old one warns
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
