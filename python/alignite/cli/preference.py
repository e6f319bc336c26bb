"""``alignite preference``, and what the commands of single objectives share"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from alignite import config as configs
from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config import PreferenceConfig
from alignite.errors import UsageError

OBJECTIVES: dict[str, tuple[type[PreferenceConfig], str]] = {
    "dpo": (configs.DPOConfig, "Train on pairs and rankings by direct preference optimization and its kin."),
    "simpo": (configs.SimPOConfig, "Train on pairs by SimPO: mean log-probabilities, no reference."),
    "orpo": (configs.ORPOConfig, "Train on pairs by ORPO: imitation and odds ratio, no reference."),
    "cpo": (configs.CPOConfig, "Train on pairs by CPO: contrast and imitation, no reference."),
    "kto": (configs.KTOConfig, "Train by KTO on replies that are good or bad, not compared."),
    "rrhf": (configs.RRHFConfig, "Train on rankings by RRHF: rank by mean log-probability, imitate the best."),
    "slic": (configs.SLiCConfig, "Train on pairs and rankings by SLiC-HF: calibrate log-probabilities by a margin."),
    "quark": (configs.QuarkConfig, "Train by Quark on replies under a marker of their reward."),
    "figa": (configs.FIGAConfig, "Train by FIGA on the tokens in which a revision differs from its original."),
    "contrast": (configs.ContrastConfig, "Train outputs to be likelier under their own instruction than others'."),
    "stable_alignment": (configs.StableAlignmentConfig, "Train on rated replies by stable alignment's loss."),
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
    if name in OBJECTIVES:
        return run_objective(name, words, f"alignite preference --objective {name}")
    if not name and words in (["--help"], ["-h"]):
        print("usage: alignite preference --objective NAME [--option value ...]\n\nobjectives:")
        print("\n".join(f"  {key:<18}{what}" for key, (_, what) in OBJECTIVES.items()))
        print("\n`alignite preference --objective NAME --help` lists the options of one.")
        return 0
    near = get_close_matches(name, OBJECTIVES, 1)
    raise UsageError(
        f"there is no objective {name!r}" if name else "no objective is given",
        fix=f"did you mean {near[0]}?" if near else f"add --objective and one of {', '.join(OBJECTIVES)}",
    )


def run_objective(name: str, argv: Sequence[str], command: str) -> int:
    """Train by one objective; prints what became of the rows and where the run ended."""
    kind, what = OBJECTIVES[name]
    config, as_json = parse(kind, command, what, argv)
    check(config)

    from alignite.trainers.methods import trainer_of

    return train(trainer_of(name, config), as_json)
