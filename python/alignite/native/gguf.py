"""The Rust reader of GGUF files."""

from __future__ import annotations

from alignite._core import Gguf, gguf_tokenizer_json

__all__ = ["Gguf", "gguf_tokenizer_json"]
