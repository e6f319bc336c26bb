"""Reward models and process reward models: a score head is trained beside the body."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from alignite.config import PRMConfig, RewardConfig
from alignite.errors import UsageError
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.score_head import attach_score_head
from alignite.objectives.prm import ProcessRewardObjective
from alignite.objectives.reward import RewardObjective
from alignite.peft import save_adapter
from alignite.trainers import record
from alignite.trainers.preference import PAIRED, PreferenceTrainer
from alignite.types import Objective

VOCABULARY = "vocabulary_head.tensors"
"""The file of a checkpoint that holds the vocabulary head of a reward model, in safetensors' format."""


class ScoreTrainer(PreferenceTrainer):
    """A model with a score head; :class:`RewardTrainer` and :class:`PRMTrainer` say what it learns."""

    answers = False
    kinds: Sequence[str] = PAIRED
    config_class: type[RewardConfig | PRMConfig]

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        args: RewardConfig | PRMConfig | None = None,
        *given: Any,
        **options: Any,
    ) -> None:
        config: Any = args if args is not None else self.config_class()
        config.validate()
        objective, self._heads = self._learned(config)
        super().__init__(model, None, config, *given, objective=objective, kinds=self.kinds, **options)
        if self.peft_config is not None:
            self.peft_config = self.peft_config.for_scores()

    def _learned(self, config: Any) -> tuple[Objective, int]:
        """The objective and the heads that it needs."""
        raise NotImplementedError

    def _open(self, device: str) -> nn.Module:
        if self._given_model is not None:
            model = self._given_model
            if getattr(model, "score", None) is None:
                attach_score_head(model, self._heads, seed=self.args.seed)
        else:
            folder = cast("Path", self.model_folder)
            model = load_reward_model(folder, self._heads, self.args.dtype, device, seed=self.args.seed)
        if "policy.logp" in self.objective.columns and not getattr(model, "has_vocabulary_head", True):
            raise UsageError(
                "lm_coefficient is given, and the model has no vocabulary head", fix="start from a language model"
            )
        return model

    def empty_model(self) -> nn.Module:
        model = super().empty_model()
        attach_score_head(model, self._heads)
        return model

    def _save_weights(self, folder: Path) -> None:
        model = cast("nn.Module", self.model)
        if self.peft_config is not None:
            save_adapter(model, folder, config=self.peft_config, base_model_name_or_path=self.model_name)
        else:
            save_reward_model(model, folder, self.tokenizer.folder)
        kind = "model" if self.peft_config is None else "adapter"
        record.card(folder, self.run_dir, kind, self.model_name)

        if folder != self.run_dir and self._trains_vocabulary_head:
            # The folder is a classifier's, which has none; going on needs the trained one.
            head = cast("Any", model).get_output_embeddings().weight
            save_file({"weight": head.detach().contiguous()}, folder / VOCABULARY)

    def _load_weights(self, folder: Path) -> None:
        super()._load_weights(folder)
        if self._trains_vocabulary_head and (folder / VOCABULARY).exists():
            with safe_open(folder / VOCABULARY, framework="pt") as saved, torch.no_grad():
                cast("Any", self.model).get_output_embeddings().weight.copy_(saved.get_tensor("weight"))

    @property
    def _trains_vocabulary_head(self) -> bool:
        return self.peft_config is None and "policy.logp" in self.objective.columns

    def _read_weights(self, folder: Path) -> nn.Module:
        return load_reward_model(folder, self._heads, self.args.dtype)


class RewardTrainer(ScoreTrainer):
    """Train a reward model on pairs and rankings.

    Args:
        model: a transformers folder of a language model, of a classifier or of a reward model; or a loaded causal LM.
        args: :class:`alignite.config.RewardConfig`. Then, in order or by name, train_dataset, eval_dataset,
            processing_class, peft_config and callbacks as in :class:`alignite.SFTTrainer`.

    Raises:
        ConfigError, UsageError: an option is out of range, or something is not given.
    """

    config_class = RewardConfig
    method = "reward"

    def _learned(self, config: RewardConfig) -> tuple[Objective, int]:
        objective = RewardObjective(
            config.loss_type,
            margin=config.margin,
            label_smoothing=config.label_smoothing,
            center_rewards_coefficient=config.center_rewards_coefficient,
            lm_coefficient=config.lm_coefficient,
            criteria=config.criteria,
        )
        return objective, len(config.criteria) or config.num_heads


class PRMTrainer(ScoreTrainer):
    """Train a process reward model on solutions whose steps are rated.

    Args:
        args: :class:`alignite.config.PRMConfig`. The others as in :class:`RewardTrainer`.

    Raises:
        ConfigError, UsageError: an option is out of range, or something is not given.
    """

    config_class = PRMConfig
    method = "prm"
    kinds = ("steps",)

    def _learned(self, config: PRMConfig) -> tuple[Objective, int]:
        objective = ProcessRewardObjective(
            config.num_classes, neutral=config.neutral, train_on_last_step_only=config.train_on_last_step_only
        )
        return objective, config.num_classes
