"""Packing as plainly as it can be said, and the lengths that it is measured on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The named lognormal generator: a median of e^5.5 = 245 tokens, cut at the window; as in Rust's pack/lengths.rs.
MU, SIGMA, CAP = 5.5, 1.0, 4096


def lognormal_lengths(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Lengths in 1..CAP: exp of a normal number, rounded down."""
    draws = np.random.default_rng(seed).lognormal(MU, SIGMA, count)
    return np.clip(draws.astype(np.int64), 1, CAP)


def best_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    """Rows by falling length, each into the fullest window that holds it; of equal ones, that which waited longest."""
    windows: list[list[int]] = []
    room: list[int] = []
    since: list[int] = []
    for now, row in enumerate(sorted(range(len(lengths)), key=lambda row: -lengths[row])):
        fitting = [w for w in range(len(windows)) if room[w] >= lengths[row]]
        if not fitting:
            windows.append([])
            room.append(capacity)
            since.append(now)
            fitting = [len(windows) - 1]
        best = min(fitting, key=lambda w: (room[w], since[w]))
        windows[best].append(row)
        room[best] -= lengths[row]
        since[best] = now
    return windows
