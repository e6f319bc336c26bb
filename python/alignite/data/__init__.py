"""Rows of files to exact batches: tokenizers of model folders, previews, preparing, prepared sets. Needs no torch."""

from __future__ import annotations

from alignite.data.mixture import Curriculum, Mixture, Stage, reservoir_sample
from alignite.data.packing import Packs, batches_by_tokens, length_grouped, pack
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.survey import Preview, preview
from alignite.data.tokenizer import ChatTokenizer

__all__ = [
    "ChatTokenizer",
    "Curriculum",
    "Mixture",
    "Packs",
    "PreparedSet",
    "Preview",
    "Stage",
    "batches_by_tokens",
    "length_grouped",
    "pack",
    "prepare_sft",
    "preview",
    "reservoir_sample",
]
