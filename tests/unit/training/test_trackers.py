"""The trackers, the real packages, on this machine alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from alignite.config import TrainingConfig
from alignite.errors import ConfigError
from alignite.training.trackers import Tracker, make_trackers
from alignite.types import RunState


def state(folder: Path) -> RunState:
    return RunState(folder, {"learning_rate": 0.1, "data": ["a"]}, 3)


def follow(tracker: Any, run: RunState, steps: range) -> None:
    """A short run as the loop tells it."""
    run.step = steps.start - 1
    run.outcome = ""
    tracker.on_train_begin(run)
    for step in steps:
        run.step = step
        tracker.on_log(run, {"loss": 1.0 / step, "learning_rate": 0.1})
        tracker.on_evaluate(run, {"eval_loss": 2.0 / step})
    run.outcome = "finished"
    tracker.on_train_end(run)


def test_tensorboard_has_every_number_once_also_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainingConfig(trackers=["tensorboard"])
    (tracker,) = make_trackers(config)
    follow(tracker, state(tmp_path), range(1, 4))
    (tracker,) = make_trackers(config)
    follow(tracker, state(tmp_path), range(3, 5))  # goes on from step 2: 3 is written again
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(event.step, round(event.value, 4)) for event in found.Scalars("loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.3333),
        (4, 0.25),
    ]
    assert [event.step for event in found.Scalars("eval_loss")] == [1, 2, 3, 4]


def test_wandb_offline_goes_on_as_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = TrainingConfig(trackers=["wandb"], project="mine", run_name="one")
    for steps in (range(1, 3), range(3, 5)):
        (tracker,) = make_trackers(config)
        follow(tracker, state(tmp_path), steps)
        assert tracker._works  # type: ignore[attr-defined]
    kept = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert all(path.name.endswith(kept) for path in runs)


def test_trackio_keeps_the_numbers_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    config = TrainingConfig(trackers=["trackio"], project="mine", run_name="one")
    (tracker,) = make_trackers(config)
    follow(tracker, state(tmp_path), range(1, 4))
    assert tracker._works  # type: ignore[attr-defined]
    lines = SQLiteStorage.get_logs("mine", "one")
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx([1.0, 0.5, 1 / 3])


class Failing(Tracker):
    name = "failing"

    def __init__(self) -> None:
        self.calls = 0

    def start(self, run: RunState) -> None:
        pass

    def write(self, step: int, metrics: Any) -> None:
        self.calls += 1
        raise ConnectionError("the network is down")

    def finish(self, run: RunState) -> None:
        pass


def test_a_tracker_that_fails_is_named_once_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Failing()
    with caplog.at_level(logging.WARNING):
        follow(tracker, state(tmp_path), range(1, 4))
    assert tracker.calls == 1
    assert caplog.text.count("failing failed") == 1
    assert "the network is down" in caplog.text


def test_a_tracker_that_is_not_installed_is_an_error_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignite.training.trackers.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"alignite\[wandb\]"):
        make_trackers(TrainingConfig(trackers=["wandb"]))
