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
from alignite.trainers.base import Dataset, Trainer, micro_batch_tokens
from alignite.training import distributed
from alignite.training.source import PackedSource
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


def packed_source(prepared: PreparedSet, config: SFTConfig) -> PackedSource:
    """The updates of a config over a prepared set; micro-batches as the config says, or as suits the device."""
    return PackedSource(
        prepared,
        batch_size=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        max_tokens=micro_batch_tokens(config),
        seed=config.seed,
        shuffle=config.shuffle,
        rank=distributed.rank(),
        world=distributed.world(),
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
    )
