"""What the folders of reward models say about themselves, read before torch is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from alignite.cli.options import stderr
from alignite.config import ScorerOptions
from alignite.errors import UsageError

Kind = TypeVar("Kind", bound=ScorerOptions)


def with_run_criteria(options: Kind) -> Kind:
    """The options with ``criteria`` as the reward models' runs name them, where nothing is given.

    They are taken only where they fit all models that are here, and where ``combine`` leaves a row to one head.

    Raises:
        UsageError: a run's criteria are others than the given ones.
    """
    named: dict[str, tuple[str, ...]] = {}
    for name in options.reward_model:
        found = _run_options(Path(name)).get("criteria")
        if isinstance(found, list) and len(found) > 1 and all(isinstance(one, str) for one in found):
            named[name] = tuple(found)
    for name, criteria in named.items():
        if options.criteria and list(criteria) != options.criteria:
            raise UsageError(
                f"criteria are {', '.join(options.criteria)}",
                where=name,
                why=f"its heads were trained as {', '.join(criteria)}",
                fix="leave --criteria out: the run's config.yaml names them",
            )
    alike = set(named.values())
    others = [name for name in options.reward_model if name not in named and Path(name).is_dir()]
    if options.criteria or not alike:
        return options
    if len(alike) == 1 and options.combine in ("mean", "min") and all(map(_has_one_head, others)):
        return replace(options, criteria=list(alike.pop()))
    stderr(f"the criteria of {', '.join(named)} are not used, as they do not fit all models; heads are numbered")
    return options


def check_kinds(options: ScorerOptions) -> None:
    """Refuse a process reward model as a reward model and the reverse, where the folder tells them apart.

    Raises:
        UsageError: a folder is of the other kind.
    """
    for name in options.reward_model:
        if _is_process_model(Path(name)):
            raise UsageError(
                "a process reward model is given as --reward_model",
                where=name,
                why="its scores are classes of steps, not criteria of replies",
                fix="give it as --process_reward_model",
            )
    for name in options.process_reward_model:
        if "num_heads" in _run_options(Path(name)):
            raise UsageError(
                "a reward model is given as --process_reward_model",
                where=name,
                why="it was trained on whole replies",
                fix="give it as --reward_model, or train one with `alignite prm`",
            )


def _is_process_model(folder: Path) -> bool:
    """By its run; of others' folders a token classifier of two or three classes is one."""
    run = _run_options(folder)
    if "num_classes" in run or "num_heads" in run:
        return "num_classes" in run
    if _json(folder / "adapter_config.json").get("task_type") == "TOKEN_CLS":
        return True
    config = _json(folder / "config.json")
    kinds = config.get("architectures")
    is_tokens = isinstance(kinds, list) and any(str(kind).endswith("ForTokenClassification") for kind in kinds)
    return is_tokens and _labels(config) in (2, 3)


def _has_one_head(folder: str) -> bool:
    path = Path(folder)
    return _run_options(path).get("num_heads") == 1 or _labels(_json(path / "config.json")) == 1


def _labels(config: Mapping[str, Any]) -> int:
    """How many labels transformers gives a classifier: 2 where nothing is said."""
    names, number = config.get("id2label"), config.get("num_labels")
    return len(names) if isinstance(names, dict) else number if isinstance(number, int) else 2


def _run_options(folder: Path) -> dict[str, Any]:
    """The options of the run whose folder or checkpoint it is; empty where it is none."""
    import yaml

    home = folder.parent if folder.name.startswith("checkpoint-") else folder
    try:
        found = yaml.safe_load((home / "config.yaml").read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # opening the model says what is wrong
    return found if isinstance(found, dict) else {}
