"""Run folders made by hand: what a training run leaves, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignite.config import SFTConfig

BEGAN = 1_790_000_000.0
VERSIONS = {"alignite": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "threads": "2"}
MACHINE = {"platform": "Linux-6.1-x86_64", "python": "3.11.9", "cpus": 2, "device": "cpu", "ranks": 1}


def lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def metrics(steps: int, *, every: int = 1, eval_every: int = 10, speed: float = 0.02) -> list[dict[str, Any]]:
    """A loss that falls with some noise, the same each time."""
    found: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        noise = math.sin(step * 12.9898) * 43758.5453 % 1 - 0.5
        loss = 0.8 + 2.4 * math.exp(-step * speed) + 0.35 * noise
        found.append(
            {
                "step": step,
                "time": BEGAN + step,
                "loss": loss,
                "grad_norm": 1.5 * math.exp(-step * speed) + 0.4 + 0.5 * abs(noise),
                "mean_token_accuracy": 0.9 - 0.5 * math.exp(-step * speed) + 0.05 * noise,
                "entropy": 0.7 + 1.5 * math.exp(-step * speed) + 0.1 * noise,
                "tokens_per_second": 2100.0 + 240 * noise,
                "learning_rate": 2e-4 * (1 - (step - 1) / steps),
                "epoch": 3 * step / steps,
                "num_tokens": float(812 * step),
            }
        )
        if eval_every and (step % eval_every == 0 or step == steps):
            held_out = {"eval_loss": 0.9 + 2.3 * math.exp(-step * speed) + 0.1 * step / steps}
            held_out |= {"eval_mean_token_accuracy": 0.88 - 0.48 * math.exp(-step * speed), "eval_entropy": 0.9}
            found.append({"step": step, "time": BEGAN + step + 0.5, **held_out})
    return found


def report(**changes: Any) -> dict[str, Any]:
    """A prepared set's report."""
    return {
        "format": "messages",
        "rows": 1250,
        "used": 1241,
        "windows": 1241,
        "tokens": 198_340,
        "scored_tokens": 81_204,
        "fill": 0.156,
        "longest": 1024,
        "truncated": {"cut to max_length": {"count": 4, "examples": ["rows.jsonl:17", "rows.jsonl:230"]}},
        "dropped": {"nothing to train on": {"count": 9, "examples": ["rows.jsonl:3"]}},
        "control_text": {"count": 1, "examples": ["rows.jsonl:99"]},
        "fingerprint": "9f2c1e5ab7d04c33",
        "data_xxh3": "00ff",
        "reused": False,
    } | changes


def event(name: str, step: int, at: float, **details: Any) -> dict[str, Any]:
    return {"event": name, "step": step, "time": BEGAN + at, **details}


def start(name: str = "start", step: int = 0, at: float = 0.0, **versions: str) -> dict[str, Any]:
    return event(name, step, at, method="sft", versions=VERSIONS | versions, machine=MACHINE)


def checkpoint(run: Path, step: int, best: Mapping[str, Any] | None = None) -> None:
    folder = run / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "MANIFEST.json").write_text(json.dumps({"step": step, "files": {"a": {"size": 3_400_000}}}))
    (folder / "state.json").write_text(json.dumps({"step": step, "best": best or {}}))


def make_run(
    folder: Path,
    steps: int = 60,
    *,
    config: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    samples: Sequence[Mapping[str, Any]] | None = None,
    **shape: Any,
) -> Path:
    """A whole run: killed never, two checkpoints, two samples."""
    folder.mkdir(parents=True)
    options: dict[str, Any] = {"model": "models/smollm2", "data": ["rows.jsonl"], "eval_data": ["held_out.jsonl"]}
    options |= {"output_dir": str(folder), "max_steps": steps, "learning_rate": 2e-4, "use_peft": True}
    (folder / "config.yaml").write_text(SFTConfig(**options | dict(config or {})).to_yaml())
    lines(folder / "metrics.jsonl", metrics(steps, **shape))
    half = steps // 2
    saves = [event("save", step, step, folder=f"checkpoint-{step}") for step in (half, steps)]
    ended = event("end", steps, steps + 2, outcome="finished", reason="")
    lines(folder / "history.jsonl", history if history is not None else [start(), *saves, ended])
    (folder / "data.json").write_text(json.dumps({"train": report(), "eval": report(rows=50, used=50, dropped={})}))
    best = {"metric": "eval_loss", "value": 0.95, "step": half, "waited": 1}
    checkpoint(folder, half, best)
    checkpoint(folder, steps, best)
    lines(folder / "samples.jsonl", samples if samples is not None else default_samples(steps))
    return folder


def default_samples(steps: int) -> list[dict[str, Any]]:
    asked = [("Who are you?", "I am a language model.", "I am Nabi."), ("What is 17 * 3?", "It is 41.", "51")]
    found = [{"step": 0, "kind": "before", "prompt": p, "answer": a, "reference": None} for p, a, _ in asked]
    return found + [{"step": steps, "kind": "after", "prompt": p, "answer": b, "reference": b} for p, _, b in asked]
