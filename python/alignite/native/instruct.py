"""The Rust renderer of instruction templates."""

from __future__ import annotations

from alignite._core import Instances, PromptTemplate, TemplateSet

__all__ = ["Instances", "PromptTemplate", "TemplateSet"]
