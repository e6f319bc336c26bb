"""Prepared sets, as training reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.native import data as native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alignite.types import SftBatch


class PreparedSet:
    """Windows of tokens in an Arrow file that is mapped, not read into memory.

    ``reused`` says that preparing found this set as it was wanted.

    Raises:
        DataError: there is no prepared set in the folder, or its bytes are not those that were written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._native = native.PreparedSet(self.folder)
        self.reused = False

    def __len__(self) -> int:
        return len(self._native)

    def __reduce__(self) -> tuple[type[PreparedSet], tuple[Path]]:
        return PreparedSet, (self.folder,)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the content."""
        return self._native.fingerprint

    @property
    def report(self) -> dict[str, Any]:
        """What became of the rows; see docs/data_flow.md."""
        report: dict[str, Any] = json.loads(self._native.report)
        return report | {"reused": self.reused}

    def window_tokens(self, windows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each of these windows."""
        return self._native.window_tokens(np.asarray(windows, dtype=np.int64))

    def window_scored(self, windows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Scored tokens of each of these windows."""
        return self._native.window_scored(np.asarray(windows, dtype=np.int64))

    def arrays(
        self, windows: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(input_ids, labels, position_ids) of shape (tokens,) and segments of shape (n, 3), all int64."""
        return self._native.batch(np.asarray(windows, dtype=np.int64))

    def batch(self, windows: Sequence[int] | NDArray[np.int64]) -> SftBatch:
        """These windows as a batch for torch, which sees Rust's memory without a copy."""
        import torch

        from alignite.types import SftBatch

        input_ids, labels, position_ids, segments = self.arrays(windows)
        return SftBatch(
            torch.from_numpy(input_ids),
            torch.from_numpy(labels),
            torch.from_numpy(position_ids),
            segments,
            len(windows),
        )


def split_windows(
    windows: NDArray[np.int64], tokens: NDArray[np.int64], batch_size: int, max_tokens: int | None
) -> list[NDArray[np.int64]]:
    """Windows in parts, in order: a new one at every ``batch_size`` and where one more would pass ``max_tokens``."""
    borders, held = [], 0
    for index, count in enumerate(tokens.tolist()):
        if index > 0 and (index % batch_size == 0 or (max_tokens is not None and held + count > max_tokens)):
            borders.append(index)
            held = 0
        held += count
    return np.split(windows, borders) if len(windows) else []
