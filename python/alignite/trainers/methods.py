"""The trainers of learning from preferences, one a method: each only picks its objective and its records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.config import PreferenceConfig
from alignite.config.preference import METHOD_CONFIGS
from alignite.errors import UsageError
from alignite.trainers.preference import PreferenceTrainer

if TYPE_CHECKING:
    from torch import nn


class MethodTrainer(PreferenceTrainer):
    """A :class:`alignite.trainers.preference.PreferenceTrainer` of one method; subclasses name it."""

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        ref_model: str | Path | nn.Module | None = None,
        args: PreferenceConfig | None = None,
        *given: Any,
        **options: Any,
    ) -> None:
        config = args if args is not None else METHOD_CONFIGS[self.method]()
        if not isinstance(config, METHOD_CONFIGS[self.method]):
            raise UsageError(f"args is a {type(config).__name__}", fix=f"give a {METHOD_CONFIGS[self.method].__name__}")
        super().__init__(model, ref_model, config, *given, **options)


class DPOTrainer(MethodTrainer):
    """Direct preference optimization: ``DPOTrainer(model, ref_model=None, args=DPOConfig(...), train_dataset=...)``.

    Args and errors as in :class:`alignite.trainers.preference.PreferenceTrainer`.
    """

    method = "dpo"


class KTOTrainer(MethodTrainer):
    """Kahneman-Tversky optimization on rows with ``prompt``, ``completion`` and ``label``.

    Args and errors as in :class:`alignite.trainers.preference.PreferenceTrainer`.
    """

    method = "kto"


class RRHFTrainer(MethodTrainer):
    """RRHF on rows with ``prompt``, ``completions`` and ``scores``.

    Args and errors as in :class:`alignite.trainers.preference.PreferenceTrainer`.
    """

    method = "rrhf"


class SLiCTrainer(MethodTrainer):
    """SLiC-HF on pairs and rankings.

    Args and errors as in :class:`alignite.trainers.preference.PreferenceTrainer`.
    """

    method = "slic"


def trainer_of(method: str, config: PreferenceConfig) -> PreferenceTrainer:
    """The trainer of a method of :data:`alignite.config.preference.METHOD_CONFIGS` by its name."""
    return trainer_class(method)(args=config)


def trainer_class(method: str) -> type[MethodTrainer]:
    """The class of a method's trainers."""
    return type("Trainer", (MethodTrainer,), {"method": method})
