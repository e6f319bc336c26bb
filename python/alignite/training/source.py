"""Updates from a prepared set, in an order that depends on the seed, the epoch and the position alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.data.prepare import check_unchanged
from alignite.data.prepared import split_windows
from alignite.errors import UsageError
from alignite.native.data import shuffled
from alignite.types import Update

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.data.prepared import PreparedSet


CPU_MICRO_BATCH_TOKENS = 896
"""Tokens of a micro-batch on a CPU: few enough that activations stay in the caches, enough that products are large."""


class PackedSource:
    """An :class:`alignite.types.UpdateSource` over a prepared set.

    An update takes ``batch_size * accumulation * world`` windows, fewer at the end of an epoch, whichever way they
    are split over micro-batches and ranks. With ``groups`` an update takes as many whole groups as are no more windows
    than that, and one group at least.

    Args:
        prepared: the windows.
        batch_size: windows in a batch. ``accumulation``: batches of a rank in an update.
        max_tokens: a batch with more is split into micro-batches of whole windows, which gives the same update in
            less memory (and, on a CPU, in less time: activations stay in the caches); None means never.
        seed, shuffle: of the order; another permutation each epoch.
        rank, world: which part of every update is this process's.
        epochs: passes over the set; ``max_steps`` wins when it is positive.
        groups: (windows,), a number that all windows of a group have, which follow each other; not with ``shuffle``.
        make_batch: the batch of some windows, and of those that follow each in the update, the first behind the last;
            default: the set's ``batch``.
        after: called after each update with its metrics.

    Raises:
        UsageError: ``groups`` and ``shuffle`` are both given.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        *,
        batch_size: int,
        accumulation: int = 1,
        max_tokens: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        epochs: float = 1.0,
        max_steps: int = -1,
        groups: NDArray[np.int64] | None = None,
        make_batch: Callable[[NDArray[np.int64], NDArray[np.int64]], Any] | None = None,
        after: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        self._prepared, self._after = prepared, after
        self._make_batch = make_batch or (lambda windows, _: prepared.batch(windows))
        self._batch_size, self._max_tokens = batch_size, max_tokens
        self._per_update = batch_size * accumulation * world
        self._rank, self._world = rank, world
        self._seed, self._shuffle = seed, shuffle
        self._borders: NDArray[np.int64] | None = None
        if groups is None:
            self.updates_per_epoch = math.ceil(len(prepared) / self._per_update)
        else:
            if shuffle:
                raise UsageError("groups are given with shuffle", fix="set shuffle to false, which would part them")
            self._borders = np.append(np.flatnonzero(np.diff(groups)) + 1, len(prepared))
            self.updates_per_epoch = position = 0
            while position < len(prepared):
                self.updates_per_epoch, position = self.updates_per_epoch + 1, self._stop(position)
        self.num_updates: int | None = max_steps if max_steps > 0 else math.ceil(epochs * self.updates_per_epoch)
        self._updates = self._epoch = self._position = self._num_tokens = 0

    def next_update(self) -> Update | None:
        """The next update's micro-batches on this rank, or None when all are done."""
        if self.num_updates is not None and self._updates >= self.num_updates:
            return None
        count = len(self._prepared)
        if self._position >= count:
            self._epoch, self._position = self._epoch + 1, 0
        stop = self._stop(self._position)
        if self._shuffle:
            windows = shuffled(count, self._seed, self._epoch, self._position, stop)
        else:
            windows = np.arange(self._position, stop, dtype=np.int64)
        self._position = stop
        self._updates += 1
        self._num_tokens += int(self._prepared.window_tokens(windows).sum())
        mine, following = (order[self._rank :: self._world] for order in (windows, np.roll(windows, -1)))
        return Update(self.batches(mine, following), self._epoch + stop / count, self._num_tokens)

    def _stop(self, position: int) -> int:
        """The window before which an update ends that begins with this one."""
        full = position + self._per_update
        if self._borders is None:
            return min(full, len(self._prepared))
        first, beyond = np.searchsorted(self._borders, (position, full), side="right")
        return int(self._borders[max(first, beyond - 1)])  # a group that is larger than an update is one

    def batches(self, windows: NDArray[np.int64], following: NDArray[np.int64]) -> list[Any]:
        """The micro-batches of these windows, each of which is followed by another in its update."""
        parts = self.micro_batches(windows)
        stops = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return [
            self._make_batch(part, following[stop - len(part) : stop]) for part, stop in zip(parts, stops, strict=True)
        ]

    def micro_batches(self, windows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """These windows in the parts that go through the model one after the other."""
        return split_windows(windows, self._prepared.window_tokens(windows), self._batch_size, self._max_tokens)

    def after_update(self, metrics: Mapping[str, float]) -> None:
        if self._after is not None:
            self._after(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Enough to go on from here, with any number of ranks."""
        return {
            "fingerprint": self._prepared.fingerprint,
            "seed": self._seed,
            "updates": self._updates,
            "epoch": self._epoch,
            "position": self._position,
            "num_tokens": self._num_tokens,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: the data is not what the state was saved over.
        """
        check_unchanged(self._prepared.fingerprint, state["fingerprint"], self._prepared.folder)
        self._updates, self._epoch = int(state["updates"]), int(state["epoch"])
        self._position, self._num_tokens = int(state["position"]), int(state["num_tokens"])
