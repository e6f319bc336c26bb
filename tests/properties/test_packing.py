"""Packing and batches: every token once, nothing over its size, and the plain twin's windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing_twin import CAP, best_fit_decreasing, lognormal_lengths

from alignite.data import Packs, batches_by_tokens, length_grouped, pack
from alignite.errors import UsageError


def windows(packs: Packs) -> list[list[int]]:
    return [rows.tolist() for rows in np.split(packs.rows, packs.offsets[1:-1])] if len(packs.rows) else []


@given(st.lists(st.integers(1, 40), max_size=80), st.integers(40, 90), st.integers(1, 30))
def test_bfd_is_the_twin_in_each_stretch(lengths: list[int], capacity: int, window_size: int) -> None:
    found = windows(pack(lengths, capacity, window_size=window_size))
    expected = []
    for start in range(0, len(lengths), window_size):
        stretch = best_fit_decreasing(lengths[start : start + window_size], capacity)
        expected += [[start + row for row in rows] for rows in stretch]
    assert found == expected


@pytest.mark.parametrize("strategy", ["bfd_split", "wrapped"])
@given(lengths=st.lists(st.integers(1, 100), max_size=60), capacity=st.integers(1, 50))
def test_cut_rows_keep_every_token_once(strategy: str, lengths: list[int], capacity: int) -> None:
    packs = pack(lengths, capacity, strategy)  # type: ignore[arg-type]
    tokens = [
        (row, token)
        for row, start, length in zip(packs.rows, packs.starts, packs.lengths, strict=True)
        for token in range(start, start + length)
    ]
    assert sorted(tokens) == [(row, token) for row, length in enumerate(lengths) for token in range(length)]
    sizes = np.add.reduceat(packs.lengths, packs.offsets[:-1]) if lengths else np.zeros(0)
    assert (sizes <= capacity).all()
    if strategy == "wrapped":
        assert tokens == sorted(tokens)
        assert (sizes[:-1] == capacity).all()
    assert packs.cuts == len(packs.rows) - len(lengths)


def test_the_named_lengths_fill_windows() -> None:
    lengths = lognormal_lengths(100_000)
    packs = pack(lengths, CAP)
    assert packs.fill(CAP) >= 0.999
    assert packs.rows.dtype == packs.offsets.dtype == np.int64
    assert packs.rows.flags.owndata is False  # Rust's memory, not a copy of it


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 100), st.booleans())
def test_token_batches_are_the_rows_in_order(lengths: list[int], budget: int, padded: bool) -> None:
    order = length_grouped(lengths, 4, megabatch=3, seed=1)
    batches = batches_by_tokens(lengths, budget, order=order, padded=padded, max_rows=5)
    assert np.array_equal(np.concatenate([*batches, np.zeros(0, np.int64)]), order)
    for batch in batches:
        sizes = np.asarray(lengths)[batch]
        assert 0 < len(batch) <= 5
        assert (sizes.max() * len(sizes) if padded else sizes.sum()) <= budget


def test_wrong_arguments_are_named() -> None:
    for call, words in [
        (lambda: pack([5], 4), "beyond the window"),
        (lambda: pack([-1], 4), "a length is -1"),
        (lambda: pack([1.5], 4), "float64"),  # type: ignore[list-item]
        (lambda: pack([1], 0), "capacity is 0"),
        (lambda: pack([1], 4, window_size=0), "window_size is 0"),
        (lambda: pack([1], 4, "ffd"), "ffd"),  # type: ignore[arg-type]
        (lambda: batches_by_tokens([9], 8), "beyond the budget"),
        (lambda: batches_by_tokens([9], 18, order=[3]), "no row 3"),
        (lambda: length_grouped([9], 0), "batch_size is 0"),
    ]:
        with pytest.raises(UsageError, match=words):
            call()
