"""The Rust packer and its batches."""

from __future__ import annotations

from alignite._core import batches_by_tokens, length_grouped, pack

__all__ = ["batches_by_tokens", "length_grouped", "pack"]
