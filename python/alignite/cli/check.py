"""``alignite check``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from alignite.cli.options import check_model_folder, escaped, parse
from alignite.cli.preference import objective_of
from alignite.cli.train import require
from alignite.config.preference import METHOD_CONFIGS, TRAINING_CONFIGS
from alignite.errors import UsageError

if TYPE_CHECKING:
    from alignite.trainers.base import Trainer
    from alignite.trainers.check import CheckReport, Finding


COMMANDS = ("sft", "reward", "prm", "dpo", "rrhf", "slic")


def run(argv: Sequence[str]) -> int:
    """Try a run: its options, folder, data, model, memory, a few real updates, disk. Leaves nothing behind.

    Returns:
        0 when the run would go, else the exit code of the first thing that is wrong.
    """
    words = list(argv)
    command = words.pop(0) if words and not words[0].startswith("-") else "sft"
    if command == "preference":
        name, words = objective_of(words)
        command = f"preference --objective {name}"
    elif command in COMMANDS:
        name = command
    else:
        raise UsageError(
            f"{command} is no command that can be tried", fix=f"it is one of {', '.join(COMMANDS)}, preference"
        )
    what = f"Try what `alignite {command}` with the same options would do, and leave nothing."
    config, as_json = parse(TRAINING_CONFIGS[name], f"alignite check {command}", what, words)
    config.validate()
    require(config)
    check_model_folder(config.model)

    from alignite.trainers.check import check_run

    report = check_run(_trainer(name), config, (lambda _: None) if as_json else _print)
    if as_json:
        print(json.dumps(_as_json(report)))
    elif report.errors:
        print(f"{len(report.errors)} of {len(report.findings)} checks failed; the run would not go as it is")
    else:
        print(f"ready: run `alignite {command}` with the same options")
    return report.errors[0].exit_code if report.errors else 0


def _trainer(name: str) -> type[Trainer]:
    if name == "sft":
        from alignite.trainers.sft import SFTTrainer

        return SFTTrainer
    if name in METHOD_CONFIGS:
        from alignite.trainers.methods import trainer_class

        return trainer_class(name)
    from alignite.trainers.reward import PRMTrainer, RewardTrainer

    return RewardTrainer if name == "reward" else PRMTrainer


def _print(finding: Finding) -> None:
    lines = escaped(finding.text).splitlines()
    print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<11}{lines[0]}", flush=True)
    for line in lines[1:]:
        print(f"{'':17}{line.strip()}", flush=True)


def _as_json(report: CheckReport) -> dict[str, object]:
    estimate = report.memory_estimate
    memory = None if estimate is None else asdict(estimate) | {"total": estimate.total}
    return {
        "ok": not report.errors,
        "checks": [{"name": f.name, "ok": f.ok, "text": f.text} for f in report.findings],
        "data": report.data,
        "updates": report.updates,
        "memory": {"estimate": memory, "measured": report.memory_measured, "free": report.memory_free},
        "seconds": {"update": report.seconds_per_update, "run": report.seconds_estimate},
        "disk": {"needed": report.disk_needed, "free": report.disk_free},
    }
