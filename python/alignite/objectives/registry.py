"""The objectives that learn from feedback, by the names that ``alignite preference --objective`` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from alignite.config.preference import METHOD_CONFIGS, PreferenceConfig
from alignite.errors import UsageError
from alignite.objectives.aot import dpo_objective
from alignite.objectives.coh import CoHObjective
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.figa import FIGAObjective
from alignite.objectives.hir import HIRObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.quark import QuarkObjective
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.objectives.slic import SLiCObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import Objective


@dataclass(frozen=True)
class Method:
    """One way to learn from feedback.

    Args:
        objective: makes the objective from its options, by keyword; a dataclass, whose fields are the options.
        kinds: the records it takes: preference, ranking, unpaired, conversation, text.
        help: what it is, in a line.
        make: makes the objective in the place of ``objective``, where the options choose its class.
    """

    objective: Callable[..., Objective]
    kinds: tuple[str, ...]
    help: str
    make: Callable[..., Objective] | None = None


METHODS: Mapping[str, Method] = {
    "dpo": Method(
        DPOObjective,
        ("preference", "ranking"),
        "prefer the chosen reply, measured against a reference",
        dpo_objective,
    ),
    "simpo": Method(SimPOObjective, ("preference", "ranking"), "prefer it by its mean log-probability, no reference"),
    "orpo": Method(ORPOObjective, ("preference", "ranking"), "imitate the chosen reply and raise its odds"),
    "cpo": Method(CPOObjective, ("preference", "ranking"), "prefer and imitate the chosen reply, no reference"),
    "kto": Method(KTOObjective, ("unpaired",), "learn from replies that are good or bad, not compared"),
    "rrhf": Method(RRHFObjective, ("preference", "ranking"), "rank replies by mean log-probability, imitate the best"),
    "slic": Method(SLiCObjective, ("preference", "ranking"), "SLiC-HF: calibrate log-probabilities by a margin"),
    "coh": Method(CoHObjective, ("preference", "ranking"), "imitate good and bad replies under markers that tell them"),
    "quark": Method(QuarkObjective, ("ranking", "unpaired"), "imitate replies under a marker of their reward"),
    "figa": Method(FIGAObjective, ("preference",), "learn the tokens in which a revision differs from its original"),
    "contrast": Method(
        InstructionContrastObjective, ("ranking",), "make outputs likelier under their own instruction than others'"
    ),
    "hir": Method(HIRObjective, ("ranking",), "the same of replies that are relabelled by what they did"),
    "stable_alignment": Method(
        StableAlignmentObjective, ("preference", "ranking"), "imitate the best, keep from others by how they rate"
    ),
}


def make_objective(name: str, **options: Any) -> Objective:
    """The objective of that name.

    Raises:
        UsageError: there is no such objective. ConfigError: an option is out of its range.
    """
    if name not in METHODS:
        raise UsageError(f"there is no objective {name!r}", fix=f"it is one of {', '.join(METHODS)}")
    return (METHODS[name].make or METHODS[name].objective)(**options)


def method_of(config: PreferenceConfig) -> str:
    """The method whose options a config has, by its class.

    Raises:
        UsageError: the config's class is no method's.
    """
    names = {known: name for name, known in METHOD_CONFIGS.items()}
    for known in type(config).__mro__:
        if known in names:
            return names[known]
    raise UsageError(
        f"a {type(config).__name__} does not say what is minimised",
        fix="give args of a method, such as DPOConfig, or an objective; reward models have trainers of their own",
    )


def objective_of(name: str, config: PreferenceConfig) -> Objective:
    """The objective of that name with the options of a config: a field of the objective is an option of the config.

    Raises:
        UsageError: there is no such objective. ConfigError: an option is out of its range.
    """
    # The config's own checks come first: they name options, the objective's name arguments.
    config.validate()
    made: Any = METHODS[name].objective
    return make_objective(name, **{item.name: getattr(config, item.name) for item in fields(made)})
