"""Rows of files to exact batches: tokenizers of model folders, previews, preparing, prepared sets. Needs no torch."""

from __future__ import annotations

from alignite.data.instruct import FewShot, PromptTemplate, TaskSource, TemplateSet
from alignite.data.mixture import Curriculum, Mixture, Stage, reservoir_sample
from alignite.data.packing import Packs, batches_by_tokens, length_grouped, pack
from alignite.data.prepare import merge_shards, prepare, prepare_sft, prepare_split
from alignite.data.prepared import Origins, PreparedSet
from alignite.data.preprocessor import Preprocessor
from alignite.data.survey import Preview, preview
from alignite.data.tokenizer import ChatTokenizer

__all__ = [
    "ChatTokenizer",
    "Curriculum",
    "FewShot",
    "Mixture",
    "Origins",
    "Packs",
    "PreparedSet",
    "Preprocessor",
    "Preview",
    "PromptTemplate",
    "Stage",
    "TaskSource",
    "TemplateSet",
    "batches_by_tokens",
    "length_grouped",
    "merge_shards",
    "pack",
    "prepare",
    "prepare_sft",
    "prepare_split",
    "preview",
    "reservoir_sample",
]
