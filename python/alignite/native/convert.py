"""The Rust converters between formats."""

from __future__ import annotations

from alignite._core import convert_files, convert_rows, format_names

__all__ = ["convert_files", "convert_rows", "format_names"]
