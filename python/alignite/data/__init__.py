"""Rows of files to exact batches: tokenizers of model folders, previews, preparing, prepared sets. Needs no torch."""

from __future__ import annotations

from alignite.data.instruct import FewShot, PromptTemplate, TaskSource, TemplateSet
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.survey import Preview, preview
from alignite.data.tokenizer import ChatTokenizer

__all__ = [
    "ChatTokenizer",
    "FewShot",
    "PreparedSet",
    "Preview",
    "PromptTemplate",
    "TaskSource",
    "TemplateSet",
    "prepare_sft",
    "preview",
]
