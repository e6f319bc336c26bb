"""The few updates of a dry run: which they are, and what is timed of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from alignite.types import Callback, RunState, Update, UpdateSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.config import TrainingConfig
    from alignite.data.prepared import PreparedSet
    from alignite.training.source import PackedSource

UPDATES = 3


class Watch(Callback):
    """Times what the estimate is made of; the first update, which warms up, does not count."""

    def __init__(self) -> None:
        self.tokens, self.seconds, self.saving = 0.0, 0.0, 0.0
        self.losses: list[float] = []
        self._before, self._logged = 0.0, 0.0

    def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
        tokens = metrics["num_tokens"] - self._before
        self._before, self._logged = metrics["num_tokens"], time.perf_counter()
        self.losses.append(metrics["loss"])
        if run.step > 1:
            self.tokens += tokens
            self.seconds += tokens / metrics["tokens_per_second"]

    def on_save(self, run: RunState, folder: Path) -> None:
        self.saving = time.perf_counter() - self._logged


class Probe:
    """An update source: the heaviest update that the set can give, then those that the run begins with."""

    def __init__(self, real: UpdateSource, prepared: PreparedSet, args: TrainingConfig) -> None:
        self._real = cast("PackedSource", real)
        self._prepared, self._args, self._made, self._tokens = prepared, args, 0, 0
        self.num_updates: int | None = UPDATES

    def next_update(self) -> Update | None:
        if self._made == UPDATES:
            return None
        self._made += 1
        if self._made == 1:
            windows = heaviest(self._prepared, self._args)
            batches = self._real.batches(windows, np.roll(windows, -1))
        else:
            update = self._real.next_update()
            assert update is not None, "the probe's config asks for as many updates as are made here"
            batches = list(update.batches)
        self._tokens += sum(batch.num_tokens for batch in batches)
        return Update(batches, 0.0, self._tokens)

    def after_update(self, metrics: Mapping[str, float]) -> None:
        self._real.after_update(metrics)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


def heaviest(prepared: PreparedSet, args: TrainingConfig) -> NDArray[np.int64]:
    """The longest windows, as many as a batch holds."""
    tokens = prepared.window_tokens(np.arange(len(prepared)))
    return np.argsort(-tokens, kind="stable")[: args.per_device_train_batch_size].astype(np.int64)
