"""Callbacks, the history they write, early stopping and the best checkpoint, in the loop itself."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy import ToySet, eight_rows, make_loop, tiny_llama

from alignite.errors import NumericsError, Preempted
from alignite.training import checkpoint
from alignite.training.history import HISTORY_FILE, History
from alignite.training.loop import Loop
from alignite.types import Callback, RunState


class Witness(Callback):
    """Notes what it is told; asks to stop after ``stop_after`` updates."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.outcome = ""
        self.stop_after = stop_after

    def on_train_begin(self, run: RunState) -> None:
        self.seen.append(("begin", run.step))

    def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
        assert metrics["loss"] == run.metrics["loss"]
        self.seen.append(("log", run.step))
        if run.step == self.stop_after:
            run.request_stop("enough")

    def on_evaluate(self, run: RunState, metrics: Mapping[str, float]) -> None:
        self.seen.append(("evaluate", run.step))

    def on_save(self, run: RunState, folder: Path) -> None:
        assert (folder / "MANIFEST.json").is_file()
        self.seen.append(("save", run.step))

    def on_train_end(self, run: RunState) -> None:
        self.seen.append(("end", run.step))
        self.outcome = f"{run.outcome}: {run.reason}"


def loop_of(run: Path, values: list[float] | None = None, **options: Any) -> Loop:
    """A loop over eight rows whose evaluations give ``values`` one after the other."""
    rows = ToySet([[row] for row in eight_rows()])
    loop = make_loop(run, tiny_llama(), rows, **{"per_device_train_batch_size": 2, "max_steps": 4, **options})
    if values is not None:
        given = iter(values)
        loop.evaluate = lambda: {"eval_loss": next(given)}
    return loop


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / HISTORY_FILE).read_text().splitlines()]


def test_callbacks_are_told_of_everything_in_order(tmp_path: Path) -> None:
    witness = Witness()
    loop = loop_of(tmp_path, [3.0, 2.0], eval_steps=2, save_steps=2)
    loop.callbacks = [witness]
    loop.run()
    two = [("log", 1), ("log", 2), ("evaluate", 2), ("save", 2)]
    assert witness.seen == [("begin", 0), *two, *((name, step + 2) for name, step in two), ("end", 4)]
    assert witness.outcome == "finished: "


def test_a_callback_can_end_the_run_and_the_same_command_goes_on(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    loop.callbacks = [Witness(stop_after=2)]
    result = loop.run()
    assert (result.step, result.stopped, result.was_finished) == (2, "enough", False)
    again = loop_of(tmp_path)
    witness = Witness()
    again.callbacks = [witness]
    result = again.run(checkpoint.newest_valid(tmp_path))
    assert (result.step, result.stopped) == (4, "")
    assert witness.seen[0] == ("begin", 2)
    whole = loop_of(tmp_path / "whole").run()
    assert result.metrics["loss"] == whole.metrics["loss"]


def test_what_a_callback_raises_ends_the_run(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
            raise ZeroDivisionError("mine")

    loop, witness = loop_of(tmp_path), Witness()
    loop.callbacks = [Broken(), witness]
    with pytest.raises(ZeroDivisionError, match="mine"):
        loop.run()
    assert witness.outcome == "failed: ZeroDivisionError: mine"


def test_the_history_tells_starts_saves_resumes_and_ends(tmp_path: Path) -> None:
    class Terminated(Callback):
        def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
            if run.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    loop = loop_of(tmp_path)
    loop.callbacks = [History(), Terminated()]
    with pytest.raises(Preempted):
        loop.run()
    loop = loop_of(tmp_path)
    loop.callbacks = [History()]
    loop.run(checkpoint.newest_valid(tmp_path))
    found = events(tmp_path)
    assert [(event["event"], event["step"]) for event in found] == [
        ("start", 0),
        ("save", 2),
        ("end", 2),
        ("resume", 2),
        ("save", 4),
        ("end", 4),
    ]
    assert [event["outcome"] for event in found if event["event"] == "end"] == ["preempted", "finished"]
    assert found[0]["versions"]["torch"]
    assert found[0]["machine"]["cpus"] == os.cpu_count()
    assert all(a["time"] <= b["time"] for a, b in itertools.pairwise(found))


def test_a_run_that_breaks_says_so_in_its_history(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, learning_rate=1e30)
    loop.callbacks = [History()]
    with pytest.raises(NumericsError):
        loop.run()
    last = events(tmp_path)[-1]
    assert last["outcome"] == "failed"
    assert "not finite" in last["reason"]


WATCH = {"metric_for_best_model": "eval_loss", "eval_steps": 1, "save_total_limit": 1}


def test_the_best_checkpoint_is_made_when_it_happens_and_outlives_the_limit(tmp_path: Path) -> None:
    result = loop_of(tmp_path, [3.0, 1.0, 2.0, 2.5], **WATCH).run()
    assert (result.best_step, result.best_value) == (2, 1.0)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-2"]


def test_early_stopping_ends_the_run_for_good_until_the_patience_grows(tmp_path: Path) -> None:
    options: dict[str, Any] = WATCH | {"early_stopping_patience": 2, "max_steps": 8}
    values = [3.0, 2.0, 2.1, 2.2, 1.0, 0.9, 0.8, 0.7]
    result = loop_of(tmp_path, values, **options).run()
    assert (result.step, result.best_step) == (4, 2)
    assert "was not better in 2 evaluations; the best is 2 (step 2)" in result.stopped
    saved = checkpoint.newest_valid(tmp_path)
    again = loop_of(tmp_path, [], **options).run(saved)
    assert (again.was_finished, again.step, again.best_step) == (True, 4, 2)
    assert again.stopped == result.stopped
    longer = loop_of(tmp_path, values[4:], **(options | {"early_stopping_patience": 3})).run(saved)
    assert (longer.step, longer.stopped, longer.best_step) == (8, "", 8)


def test_the_best_survives_a_resume(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, [1.0, 2.0], **WATCH)
    loop.callbacks = [Witness(stop_after=2)]
    loop.run()
    result = loop_of(tmp_path, [3.0, 4.0], **WATCH).run(checkpoint.newest_valid(tmp_path))
    assert result.best_step == 1
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-1"]
