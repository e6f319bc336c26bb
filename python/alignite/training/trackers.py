"""Metrics to TensorBoard, Weights & Biases and trackio: one small callback for each.

A tracker is an extra, and a convenience: metrics.jsonl has every number. So a tracker that fails on the way is
named in the log once and left alone, and the run goes on.
"""

from __future__ import annotations

import json
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignite.config import TrainingConfig
from alignite.errors import ConfigError
from alignite.files import write_file
from alignite.types import Callback, RunState

log = logging.getLogger("alignite")

IDS_FILE = "trackers.json"


class Tracker(Callback, ABC):
    """What the three share: a start, numbers at a step, an end; none of them can end the run."""

    name = ""
    _works = True

    @abstractmethod
    def start(self, run: RunState) -> None: ...

    @abstractmethod
    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    @abstractmethod
    def finish(self, run: RunState) -> None: ...

    def on_train_begin(self, run: RunState) -> None:
        self._try(lambda: self.start(run))

    def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
        self._try(lambda: self.write(run.step, metrics))

    def on_evaluate(self, run: RunState, metrics: Mapping[str, float]) -> None:
        self._try(lambda: self.write(run.step, metrics))

    def on_train_end(self, run: RunState) -> None:
        self._try(lambda: self.finish(run))

    def _try(self, call: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            with redirect_stdout(sys.stderr):  # stdout is for results
                call()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the run is worth more
            self._works = False
            log.warning(
                "%s failed and gets no more metrics (%s: %s); metrics.jsonl has them all",
                self.name,
                type(error).__name__,
                error,
            )


class TensorBoard(Tracker):
    """Event files in the run's ``tensorboard`` folder: ``tensorboard --logdir RUN``."""

    name = "tensorboard"

    def start(self, run: RunState) -> None:
        tensorboard = import_module("torch.utils.tensorboard")
        # A run that goes on from a step hides what an earlier process wrote after it.
        purge = run.step + 1 if run.step else None
        self._writer: Any = tensorboard.SummaryWriter(str(run.run_dir / "tensorboard"), purge_step=purge)
        self._writer.add_text("config", f"```json\n{json.dumps(run.config, indent=1, default=str)}\n```")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def finish(self, run: RunState) -> None:
        self._writer.close()


class WandB(Tracker):
    """Weights & Biases; WANDB_MODE=offline keeps everything on this machine. A resumed run goes on as the same one."""

    name = "wandb"

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config

    def start(self, run: RunState) -> None:
        wandb = import_module("wandb")
        kept = _kept_id(run.run_dir, self.name)
        self._run: Any = wandb.init(
            project=self._config.project,
            name=_run_name(self._config, run),
            config=dict(run.config),
            dir=str(run.run_dir),
            id=kept,
            resume="allow" if kept else None,
        )
        _keep_id(run.run_dir, self.name, str(self._run.id))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self, run: RunState) -> None:
        self._run.finish(exit_code=0 if run.outcome in ("finished", "stopped") else 1)


class Trackio(Tracker):
    """trackio, which keeps metrics on this machine: ``trackio show``. A resumed run goes on under its name."""

    name = "trackio"

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config

    def start(self, run: RunState) -> None:
        self._trackio: Any = import_module("trackio")
        self._trackio.init(
            project=self._config.project,
            name=_run_name(self._config, run),
            config=json.loads(json.dumps(run.config, default=str)),
            resume="allow",
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._trackio.log(dict(metrics), step=step)

    def finish(self, run: RunState) -> None:
        self._trackio.finish()


def make_trackers(config: TrainingConfig) -> list[Callback]:
    """The trackers that the config names.

    Raises:
        ConfigError: the package of one is not installed.
    """
    missing = [name for name in config.trackers if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"trackers has {missing[0]!r}, which is not installed", fix=f"pip install 'alignite[{missing[0]}]'"
        )
    made: dict[str, Callable[[], Tracker]] = {
        "tensorboard": TensorBoard,
        "wandb": lambda: WandB(config),
        "trackio": lambda: Trackio(config),
    }
    return [made[name]() for name in dict.fromkeys(config.trackers)]


def _run_name(config: TrainingConfig, run: RunState) -> str:
    return config.run_name or run.run_dir.resolve().name


def _kept_id(folder: Path, name: str) -> str | None:
    try:
        found = json.loads((folder / IDS_FILE).read_text()).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _keep_id(folder: Path, name: str, value: str) -> None:
    write_file(folder / IDS_FILE, json.dumps({name: value}))
