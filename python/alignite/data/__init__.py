"""Rows of files to exact batches: tokenizers of model folders, previews, preparing, prepared sets. Needs no torch."""

from __future__ import annotations

from alignite.data.instruct import FewShot, PromptTemplate, TaskSource, TemplateSet
from alignite.data.prepare import merge_shards, prepare, prepare_sft
from alignite.data.prepared import ROLES, Origins, PreparedSet
from alignite.data.preprocessor import Preprocessor
from alignite.data.survey import Preview, preview
from alignite.data.tokenizer import ChatTokenizer

__all__ = [
    "ROLES",
    "ChatTokenizer",
    "FewShot",
    "Origins",
    "PreparedSet",
    "Preprocessor",
    "Preview",
    "PromptTemplate",
    "TaskSource",
    "TemplateSet",
    "merge_shards",
    "prepare",
    "prepare_sft",
    "preview",
]
