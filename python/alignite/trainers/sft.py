"""Supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.objectives.sft import SFTObjective
from alignite.trainers.base import Dataset, Trainer, packed_source
from alignite.types import Callback


class SFTTrainer(Trainer):
    """Train a causal LM on what assistants say in conversations.

    Args:
        model: a transformers folder, or a loaded model.
        args: :class:`alignite.SFTConfig`.
        train_dataset, eval_dataset: files, globs, rows as mappings, a ``datasets.Dataset``, or a prepared set;
            default: ``data`` and ``eval_data`` of the config.
        processing_class: the tokenizer's folder, when it is not the model's.
        peft_config: :class:`alignite.LoraConfig` or PEFT's; default: the config's ``lora_*`` with ``use_peft``.
        callbacks: objects of subclasses of :class:`alignite.Callback`.

    Raises:
        ConfigError, UsageError: an option is out of range, or something is not given.
    """

    method = "sft"

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        args: SFTConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: ChatTokenizer | str | Path | None = None,
        peft_config: Any = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        config = args if args is not None else SFTConfig()

        def prepare(data: Any, tokenizer: ChatTokenizer, folder: Path, expected: str | None) -> PreparedSet:
            return prepare_sft(data, tokenizer, config, folder, expected=expected)

        datasets = (train_dataset, eval_dataset)
        super().__init__(
            model,
            config,
            *datasets,
            processing_class,
            peft_config,
            callbacks,
            objective=SFTObjective(),
            prepare=prepare,
            source=lambda prepared: packed_source(prepared, config),
        )
