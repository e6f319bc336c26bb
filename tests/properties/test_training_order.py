"""Any split of updates over micro-batches and ranks, stopped anywhere, reads the same windows in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from alignite.training.source import PackedSource


@dataclass
class Numbers:
    """A prepared set whose batches are the windows' numbers."""

    count: int
    fingerprint: str = "numbers"
    folder: Path = Path("numbers")

    def __len__(self) -> int:
        return self.count

    def window_tokens(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.asarray(windows) + 1

    def batch(self, windows: NDArray[np.int64]) -> list[int]:
        return windows.tolist()


def source(count: int, batch: int, accumulation: int, world: int, rank: int, seed: int, epochs: float) -> PackedSource:
    numbers: Any = Numbers(count)
    return PackedSource(
        numbers, batch_size=batch, accumulation=accumulation, world=world, rank=rank, seed=seed, epochs=epochs
    )


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 60),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    seed=st.integers(0, 2**32),
    epochs=st.floats(0.1, 3.0),
    stop=st.integers(0, 10),
)
def test_order(count: int, shape: tuple[int, int, int], seed: int, epochs: float, stop: int) -> None:
    size = shape[0] * shape[1] * shape[2]
    whole = source(count, size, 1, 1, 0, seed, epochs)
    expected, states, tokens = [], [whole.state_dict()], []
    while (update := whole.next_update()) is not None:
        expected.append(list(chain.from_iterable(update.batches)))
        states.append(whole.state_dict())
        tokens.append(update.num_tokens)
    assert len(expected) == whole.num_updates
    per_epoch = -(-count // size)
    for start in range(0, len(expected) - per_epoch + 1, per_epoch):
        assert sorted(chain.from_iterable(expected[start : start + per_epoch])) == list(range(count))
    assert tokens == list(np.cumsum([sum(n + 1 for n in part) for part in expected]))

    stop = min(stop, len(expected))
    batch, accumulation, world = shape
    ranks = []
    for rank in range(world):
        part = source(count, batch, accumulation, world, rank, seed, epochs)
        part.load_state_dict(states[stop])
        found = []
        while (update := part.next_update()) is not None:
            assert all(0 < len(item) <= batch for item in update.batches)
            assert len(update.batches) <= accumulation
            found.append(list(chain.from_iterable(update.batches)))
        ranks.append(found)
    together = [sorted(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)]
    assert together == [sorted(part) for part in expected[stop:]]
