"""Which rows share a window or a batch, from their lengths alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from alignite.errors import UsageError
from alignite.native import packing as native

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Strategy = Literal["none", "bfd", "bfd_split", "wrapped"]


class Packs(NamedTuple):
    """Windows of pieces, flat: window w holds the pieces ``offsets[w]`` up to ``offsets[w + 1]``. All are int64.

    A piece is the tokens ``starts`` up to ``starts + lengths`` of the row ``rows``, and a segment of its own: its first
    label is -100, and its positions begin at 0.
    """

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def cuts(self) -> int:
        """The pieces that do not begin their row: each costs a label, of the token that lost what stood before it."""
        return int(np.count_nonzero(self.starts))

    def fill(self, capacity: int) -> float:
        """Which share of the windows is tokens."""
        windows = len(self.offsets) - 1
        return float(self.lengths.sum()) / (windows * capacity) if windows else 0.0


def pack(lengths: ArrayLike, capacity: int, strategy: Strategy = "bfd", window_size: int = 10_000) -> Packs:
    """Put rows into windows of ``capacity`` tokens; the arrays own the memory that Rust filled.

    ``bfd`` is best-fit-decreasing (Johnson 1973) with TRL's ties: of equal lengths the earlier row, of windows with
    equal room the one that has had it longest. ``bfd_split`` first cuts longer rows into windows and a rest.
    ``wrapped`` puts rows one after the other and cuts at every border; its documents never see each other.
    ``none`` leaves rows alone. To keep records of several segments whole, pack by their summed lengths.

    Args:
        lengths: tokens of each row, whole numbers of shape (rows,).
        capacity: tokens of a window.
        strategy: see above.
        window_size: so many rows are packed together, so that a stream can be packed.

    Raises:
        UsageError: a length is negative, or beyond ``capacity`` where rows are not cut; an argument is out of range.
    """
    _check("capacity", capacity, 2**24)
    _check("window_size", window_size, 2**31)
    return Packs(*native.pack(_numbers("lengths", lengths), capacity, strategy, window_size))


def batches_by_tokens(
    lengths: ArrayLike,
    budget: int,
    *,
    order: ArrayLike | None = None,
    padded: bool = False,
    max_rows: int | None = None,
) -> list[NDArray[np.int64]]:
    """Batches of rows whose tokens are at most ``budget``, each taking rows in order while they fit.

    Args:
        lengths: tokens of each row, shape (rows,).
        budget: tokens of a batch; with ``padded``, its longest row times its rows.
        order: rows in the order in which they are taken, such as :func:`length_grouped` gives; default as they stand.
        padded: count padding.
        max_rows: the most rows of a batch.

    Raises:
        UsageError: a row alone is beyond the budget, there is no such row, or an argument is out of range.
    """
    _check("budget", budget, 2**63 - 1)
    _check("max_rows", 2**31 if max_rows is None else max_rows, 2**31)
    counts = _numbers("lengths", lengths)
    rows = np.arange(len(counts)) if order is None else _numbers("order", order)
    ends = native.batches_by_tokens(counts, rows, budget, padded, max_rows or 2**31)
    return np.split(rows, ends[1:-1]) if len(rows) else []


def length_grouped(
    lengths: ArrayLike, batch_size: int, *, megabatch: int = 50, seed: int = 0, epoch: int = 0
) -> NDArray[np.int64]:
    """All rows in an order whose neighbours have similar lengths, as transformers' ``group_by_length``.

    A random order, another one each epoch, is cut into mega-batches of ``megabatch`` batches, and each is sorted by
    falling length. The longest row of all comes first. Ranks take their shares of this one order.

    Raises:
        UsageError: an argument is out of range.
    """
    for name, value in (("batch_size", batch_size), ("megabatch", megabatch)):
        _check(name, value, 2**31)
    for name, value in (("seed", seed), ("epoch", epoch)):
        _check(name, value, 2**64 - 1, 0)
    return native.length_grouped(_numbers("lengths", lengths), batch_size, megabatch, seed, epoch)


def _check(name: str, value: int, most: int, least: int = 1) -> None:
    if not least <= value <= most:
        raise UsageError(f"{name} is {value}", fix=f"it must be {least} to {most}")


def _numbers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Whole numbers as an int64 array of one dimension, without a copy where it is one."""
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise UsageError(f"{name} is {found.dtype} of shape {found.shape}", fix="it must be whole numbers in one row")
    return found.astype(np.int64, copy=False)
