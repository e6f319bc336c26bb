"""The methods of learning from preferences, by the name that ``alignite preference --objective`` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.config import CPOConfig, DPOConfig, KTOConfig, ORPOConfig, PreferenceConfig, SimPOConfig
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.trainers.preference import PAIRED, PreferenceTrainer

if TYPE_CHECKING:
    from torch import nn

    from alignite.types import Objective


@dataclass(frozen=True)
class Method:
    """A method.

    Args:
        config: its config class. ``objective``: what makes its objective of the config's options.
        kinds: the records that it takes.
    """

    config: type[PreferenceConfig]
    objective: Callable[..., Objective]
    kinds: tuple[str, ...] = PAIRED


METHODS = {
    "dpo": Method(DPOConfig, DPOObjective),
    "simpo": Method(SimPOConfig, SimPOObjective),
    "orpo": Method(ORPOConfig, ORPOObjective),
    "cpo": Method(CPOConfig, CPOObjective),
    "kto": Method(KTOConfig, KTOObjective, ("unpaired",)),
}


def make_objective(method: Method, config: PreferenceConfig) -> Objective:
    """The method's objective with the config's values; a field of the one is an option of the other."""
    known: Any = method.objective
    return method.objective(**{item.name: getattr(config, item.name) for item in fields(known)})


class MethodTrainer(PreferenceTrainer):
    """A :class:`alignite.trainers.preference.PreferenceTrainer` of one method; subclasses name it."""

    method: str

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        ref_model: str | Path | nn.Module | None = None,
        args: PreferenceConfig | None = None,
        *given: Any,
        **options: Any,
    ) -> None:
        method = METHODS[self.method]
        config = args if args is not None else method.config()
        # The config's own checks come first: they name options, the objective's name arguments.
        config.validate()
        objective = make_objective(method, config)
        super().__init__(model, ref_model, config, *given, objective=objective, kinds=method.kinds, **options)


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


def trainer_of(method: str, config: PreferenceConfig) -> PreferenceTrainer:
    """The trainer of a method by its name in :data:`METHODS`."""
    kind = type(f"{method.upper()}Trainer", (MethodTrainer,), {"method": method})
    trainer: PreferenceTrainer = kind(args=config)
    return trainer
