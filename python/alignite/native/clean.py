"""The Rust cleaning of texts."""

from __future__ import annotations

from alignite._core import TextCleaner

__all__ = ["TextCleaner"]
