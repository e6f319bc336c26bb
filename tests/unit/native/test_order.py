from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignite.native.data import shuffled


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 2**31))
def test_an_epoch_holds_each_index_once(count: int, seed: int, epoch: int) -> None:
    order = shuffled(count, seed, epoch, 0, count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


@given(st.integers(1, 500), st.integers(0, 99), st.data())
def test_any_part_is_that_part_of_the_whole(count: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    whole = shuffled(count, seed, 1, 0, count)
    assert np.array_equal(shuffled(count, seed, 1, start, stop), whole[start:stop])


def test_seeds_and_epochs_give_other_orders_and_the_same_ones_the_same() -> None:
    orders = [tuple(shuffled(200, seed, epoch, 0, 200)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25
    assert tuple(shuffled(200, 3, 2, 0, 200)) == orders[3 * 5 + 2]


def test_the_order_is_written_down() -> None:
    """Resuming relies on it: another order is a breaking change."""
    assert shuffled(10, 42, 0, 0, 10).tolist() == [6, 2, 1, 5, 3, 9, 0, 7, 4, 8]


def test_places_are_spread_evenly() -> None:
    where = np.array([np.argmax(shuffled(64, seed, 0, 0, 64) == 0) for seed in range(2000)])
    counts = np.bincount(where, minlength=64)
    # 64 cells of 31.25 each: chi-square with 63 degrees of freedom stays below 120 except once in 20,000 times.
    assert ((counts - 31.25) ** 2 / 31.25).sum() < 120


def test_ranges_outside_are_refused() -> None:
    for start, stop in ((0, 11), (5, 4)):
        with pytest.raises(ValueError, match=r"are not inside 0\.\.10"):
            shuffled(10, 0, 0, start, stop)
