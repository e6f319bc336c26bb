"""The Rust data path: preparing, prepared sets, and the order of an epoch."""

from __future__ import annotations

from alignite._core import ArrowTable, FileRows, PreparedSet, Preparer, Sources, merge_prepared, shuffled

__all__ = ["ArrowTable", "FileRows", "PreparedSet", "Preparer", "Sources", "merge_prepared", "shuffled"]
