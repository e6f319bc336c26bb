"""What the commands that train share: what they need, and what they say at the end."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from alignite.cli.options import check_data, check_model_folder, stderr
from alignite.config import TrainingConfig
from alignite.errors import UsageError

if TYPE_CHECKING:
    from alignite.trainers.base import Trainer


def check(config: TrainingConfig) -> None:
    """Refuse what can be refused before torch and transformers are imported, which takes seconds."""
    config.validate()
    require(config)
    check_model_folder(str(config.model))
    check_data(config.data, config.eval_data)


def train(trainer: Trainer, as_json: bool) -> int:
    """Train and print what became of the rows and where the run ended."""
    from alignite.training import distributed

    config = trainer.args
    result = trainer.train()
    if distributed.rank() != 0:  # one rank speaks for all
        return 0
    if result.was_finished and result.stopped:
        stderr(f"the run is finished (step {result.step}): {result.stopped}")
        stderr("raise early_stopping_patience or choose another output_dir to go on")
    elif result.was_finished:
        stderr(f"the run is finished (step {result.step}); raise max_steps or choose another output_dir to go on")
    elif result.stopped:
        stderr(f"stopped after update {result.step}: {result.stopped}")
    if result.best_step is not None:
        taken = " (its weights are the result)" if config.load_best_model_at_end else ""
        stderr(f"best {config.metric_for_best_model} {result.best_value:.6g} at checkpoint-{result.best_step}{taken}")
    for line in describe(trainer.data_report):
        stderr(line)
    if as_json:
        metrics = {name: value if math.isfinite(value) else None for name, value in result.metrics.items()}
        report = {"step": result.step, "metrics": metrics, "output_dir": config.output_dir}
        report |= {"was_finished": result.was_finished, "stopped": result.stopped, "data": trainer.data_report}
        print(json.dumps(report | {"best_step": result.best_step, "best_value": result.best_value}))
    else:
        kind = "adapter" if trainer.peft_config is not None else "model"
        stderr(f"how it went: {config.output_dir}/report.html")
        print(f"{kind} after {result.step} updates in {config.output_dir}")
    return 0


def require(config: TrainingConfig) -> None:
    """Refuse a run that lacks its model, data or folder.

    Raises:
        UsageError: names the option.
    """
    for name, example in (("model", "--model DIR"), ("data", "--data FILE"), ("output_dir", "--output_dir DIR")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")


def describe(report: dict[str, Any]) -> list[str]:
    """A data report in lines: rows in, rows used, what was cut or dropped and why, and what of the used ones is odd."""
    if not report:
        return []
    teaching = report.get("teaching", report["used"])
    lines = [
        f"data: {report['used']} of {report['rows']} rows ({report['format']}), "
        + (f"{teaching} of which teach, " if teaching != report["used"] else "")
        + f"{report['tokens']} tokens, {report['scored_tokens']} scored, {report['windows']} windows"
        + (", reused" if report["reused"] else "")
    ]
    used = dict(report.get("noticed", {}))
    if report["control_text"]["count"]:
        used["control tokens in a content, kept as text"] = report["control_text"]
    for what, found in (("cut", report["truncated"]), ("dropped", report["dropped"]), ("used", used)):
        lines += [_counted(what, "row", reason, entry) for reason, entry in found.items()]
    lines += [_counted("makes none", "row", reason, entry) for reason, entry in report.get("unmade", {}).items()]
    # Parts of rows that are used otherwise: solutions that branch have several records.
    lines += [
        _counted("dropped", "record", reason, entry) for reason, entry in report.get("dropped_records", {}).items()
    ]
    if report.get("unused_columns"):
        lines.append(f"  columns that are not read: {', '.join(report['unused_columns'])}")
    return lines


def _counted(became: str, what: str, reason: str, entry: dict[str, Any]) -> str:
    many = "" if entry["count"] == 1 else "s"
    return f"  {became}: {entry['count']} {what}{many}: {reason} (first: {entry['examples'][0]})"
