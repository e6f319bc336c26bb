"""``alignite preference``, and what the commands of single objectives share"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config.preference import METHOD_CONFIGS
from alignite.errors import UsageError
from alignite.objectives.registry import METHODS


def run(argv: Sequence[str]) -> int:
    """Train by the objective that ``--objective`` names; its options are those of its config class."""
    if list(argv) in (["--help"], ["-h"]):
        print("usage: alignite preference --objective NAME [--option value ...]\n\nobjectives:")
        print("\n".join(f"  {key:<18}{method.help}" for key, method in METHODS.items()))
        print("\n`alignite preference --objective NAME --help` lists the options of one.")
        return 0
    name, words = objective_of(argv)
    return run_objective(name, words, f"alignite preference --objective {name}")


def objective_of(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The objective that ``--objective`` names, and the other words.

    Raises:
        UsageError: there is no such objective.
    """
    words, name = list(argv), ""
    for index, word in enumerate(words):
        if word == "--objective" or word.startswith("--objective="):
            taken = 1 if "=" in word else 2
            name = word.partition("=")[2] if "=" in word else "".join(words[index + 1 : index + 2])
            del words[index : index + taken]
            break
    if name in METHODS:
        return name, words
    near = get_close_matches(name, METHODS, 1)
    raise UsageError(
        f"there is no objective {name!r}" if name else "no objective is given",
        fix=f"did you mean {near[0]}?" if near else f"add --objective and one of {', '.join(METHODS)}",
    )


def run_objective(name: str, argv: Sequence[str], command: str) -> int:
    """Train by one objective; prints what became of the rows and where the run ended."""
    method = METHODS[name]
    what = f"Train on {' and '.join(method.kinds)} rows: {method.help}."
    config, as_json = parse(METHOD_CONFIGS[name], command, what, argv)
    check(config)

    from alignite.trainers.methods import trainer_of

    return train(trainer_of(name, config), as_json)
