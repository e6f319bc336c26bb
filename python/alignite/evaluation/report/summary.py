"""What became of a run, in words and numbers: reports and model cards say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alignite.evaluation.report.metric_lines import Series
from alignite.evaluation.report.run_files import Event, Run
from alignite.evaluation.report.wording import duration, number, plural

_OUTCOMES = {
    "finished": ("Finished", "good"),
    "stopped": ("Stopped early", "good"),
    "preempted": ("Preempted", "warning"),
    "failed": ("Failed", "bad"),
}


@dataclass(frozen=True)
class Status:
    """How a run stands; ``tone`` is good, warning, bad or unknown."""

    word: str
    tone: str
    why: str


def status(run: Run) -> Status:
    """How the run stands, by the last event of its history that tells."""
    events = [event for event in run.history if event.name in ("start", "resume", "end")]
    if not events:
        return Status("Unknown", "unknown", "there is no history.jsonl to tell how the run ended")
    last = events[-1]
    if last.name != "end":
        return Status("Not ended", "warning", "it still runs, or the process was killed")
    word, tone = _OUTCOMES.get(last.text("outcome"), ("Unknown", "unknown"))
    return Status(word, tone, last.text("reason"))


@dataclass(frozen=True)
class Session:
    """One process's part of a run: from a start or resume to its end, or as far as its traces go."""

    begin: Event
    end: Event | None
    seconds: float | None


def sessions(run: Run) -> list[Session]:
    """The processes that worked on the run, in order."""
    begins = [index for index, event in enumerate(run.history) if event.name in ("start", "resume")]
    found = []
    for index, following in zip(begins, [*begins, len(run.history)][1:], strict=True):
        events = run.history[index:following]
        end = next((event for event in events if event.name == "end"), None)
        times = [event.time for event in events if event.time is not None]
        if end is None and following == len(run.history) and "time" in run.train:
            times.append(run.train["time"].last)
        known = events[0].time is not None and len(times) > 1
        found.append(Session(events[0], end, max(times) - times[0] if known else None))
    return found


def resumes(run: Run) -> list[int]:
    """The updates after which a process went on."""
    return [event.step for event in run.history if event.name == "resume" and event.step is not None]


def last_step(run: Run) -> int | None:
    """Updates that the metrics and the history know of."""
    steps = [int(series.steps[-1]) for series in (*run.train.values(), *run.evaluations.values())]
    steps += [event.step for event in run.history if event.step is not None]
    return max(steps, default=None)


def best_of(run: Run, metric: str, greater: bool) -> tuple[float, int] | None:
    """The best evaluation of a metric and its update."""
    series = run.evaluations.get(metric)
    finite = series.finite if series is not None else None
    if finite is None or not len(finite.values):
        return None
    index = int(np.argmax(finite.values) if greater else np.argmin(finite.values))
    return float(finite.values[index]), int(finite.steps[index])


@dataclass(frozen=True)
class Figure:
    """A number that sums a run up: what it is, its text, its unit, more about it, the bare value.

    ``better`` is 1 where more is better, -1 where less is, else 0.
    """

    label: str
    text: str
    unit: str = ""
    note: str = ""
    value: float | None = None
    better: int = 0


def figures(run: Run) -> list[Figure]:
    """The final numbers, those that are known."""
    found = []
    for name, label, better in (("loss", "Training loss", -1), ("mean_token_accuracy", "Token accuracy", 1)):
        for group, words in ((run.train, label), (run.evaluations, f"Held-out {label.split(' ', 1)[1]}")):
            series = group.get(name)
            if series is None:
                continue
            note = f"at update {int(series.steps[-1]):,}"
            best = best_of(run, name, better > 0) if group is run.evaluations else None
            if best is not None and best[1] != int(series.steps[-1]):
                note += f"; best {number(best[0])} at {best[1]:,}"
            elif group is run.train and len(series.steps) > 1:
                note += f"; {number(float(series.values[0]))} at {int(series.steps[0]):,}"
            found.append(Figure(words, number(series.last), "", note, series.last, better))
    step = last_step(run)
    if step is not None:
        epoch = run.train.get("epoch")
        note = f"{epoch.last:.3g} epochs" if epoch is not None else ""
        found.append(Figure("Updates", number(step), "", note, step))
    tokens = run.train.get("num_tokens")
    if tokens is not None:
        found.append(Figure("Tokens read", number(tokens.last, 1), "prompts included", "", tokens.last))
    speed = _finite(run.train.get("tokens_per_second"))
    if speed is not None:
        median = float(np.median(speed.values))
        found.append(Figure("Throughput", number(median, 3), "tokens per second, median", "", median, 1))
    parts = [session.seconds for session in sessions(run)]
    seconds = [part for part in parts if part is not None]
    if seconds:
        note = f"in {plural(len(parts), 'session')}" if len(parts) > 1 else ""
        found.append(Figure("Time", duration(sum(seconds)), "with evaluations and saving", note, sum(seconds)))
    return found


def _finite(series: Series | None) -> Series | None:
    return series.finite if series is not None and len(series.finite.values) else None


def adapter_words(run: Run) -> str:
    """``LoRA, rank 8, alpha 16``; nothing when all weights were trained or it is not known."""
    values: dict[str, Any] = run.adapter
    if not values and run.config.get("use_peft") is True:
        values = {"r": run.config.get("lora_r"), "lora_alpha": run.config.get("lora_alpha")}
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if isinstance(rank, int) and isinstance(alpha, int | float):
        return f"LoRA, rank {rank}, alpha {alpha:g}"
    return ""


def changed_options(run: Run) -> dict[str, tuple[object, object]]:
    """Options whose value is not the default, as (value, default); a name that is no option has the default ``...``."""
    defaults = run.options().to_dict()
    return {
        name: (value, defaults.get(name, ...))
        for name, value in run.config.items()
        if name not in defaults or value != defaults[name]
    }


def base_model(run: Run) -> str | None:
    """The folder of the model that was trained."""
    for value in (run.config.get("model"), run.adapter.get("base_model_name_or_path")):
        if isinstance(value, str) and value:
            return value
    return None


def data_files(run: Run, key: str) -> list[str]:
    """The files of ``data`` or ``eval_data``."""
    value = run.config.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []
