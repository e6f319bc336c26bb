"""The Rust data path: preparing, prepared sets, and the order of an epoch."""

from __future__ import annotations

from alignite._core import FileRows, PreparedSet, Preparer, shuffled

__all__ = ["FileRows", "PreparedSet", "Preparer", "shuffled"]
