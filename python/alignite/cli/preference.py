"""``alignite preference``, and the commands that are one of its objectives"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config import CPOConfig, DPOConfig, KTOConfig, ORPOConfig, PreferenceConfig, SimPOConfig
from alignite.errors import UsageError

OBJECTIVES: dict[str, tuple[type[PreferenceConfig], str]] = {
    "dpo": (DPOConfig, "Train on pairs and rankings by direct preference optimization and its kin."),
    "simpo": (SimPOConfig, "Train on pairs by SimPO: length-normalised, without a reference."),
    "orpo": (ORPOConfig, "Train on pairs by ORPO: imitation and odds ratio, without a reference."),
    "cpo": (CPOConfig, "Train on pairs by CPO: contrast and imitation, without a reference."),
    "kto": (KTOConfig, "Train on replies with labels by KTO."),
}


def run(argv: Sequence[str]) -> int:
    """Train by the objective that ``--objective`` names; its options are those of its config class."""
    words, name = list(argv), ""
    for index, word in enumerate(words):
        if word == "--objective" or word.startswith("--objective="):
            taken = 1 if "=" in word else 2
            name = word.partition("=")[2] if "=" in word else "".join(words[index + 1 : index + 2])
            del words[index : index + taken]
            break
    if name not in OBJECTIVES:
        near = get_close_matches(name, OBJECTIVES, 1)
        if not name and words in (["--help"], ["-h"]):
            print("usage: alignite preference --objective NAME [--option value ...]\n\nobjectives:")
            print("\n".join(f"  {key:<10}{text}" for key, (_, text) in OBJECTIVES.items()))
            print("\n`alignite preference --objective NAME --help` lists the options of one.")
            return 0
        raise UsageError(
            f"unknown objective {name!r}" if name else "no objective is given",
            fix=f"did you mean {near[0]}?" if near else f"add --objective and one of {', '.join(OBJECTIVES)}",
        )
    return run_objective(name, words, f"alignite preference --objective {name}")


def run_objective(name: str, argv: Sequence[str], command: str) -> int:
    """Train by one objective; prints what became of the rows and where the run ended."""
    kind, what = OBJECTIVES[name]
    config, as_json = parse(kind, command, what, argv)
    check(config)

    from alignite.trainers.methods import trainer_of

    return train(trainer_of(name, config), as_json)
