"""Agreement of raters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignite.errors import DataError, UsageError
from alignite.feedback.agreement import (
    bootstrap_interval,
    cohen_kappa,
    encode,
    fleiss_kappa,
    kendall_tau_b,
    krippendorff_alpha,
    pairwise_accuracy,
    raw_agreement,
    wilson,
)


def test_raw_agreement_counts_what_both_rated() -> None:
    share = raw_agreement(["x", "y", None, "x"], ["x", "x", "y", float("nan")])
    assert (share.right, share.count, share.share) == (1, 2, 0.5)
    with pytest.raises(DataError, match="no share"):
        raw_agreement([None], ["x"])


def test_kappa_by_hand() -> None:
    # Cohen's example shape: p_o = .7, p_e = .5, kappa = .4.
    one = ["y"] * 25 + ["n"] * 25
    other = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(one, other) == pytest.approx(0.4, abs=1e-12)
    # A weighted miss by one category of two costs half of a miss by both.
    assert cohen_kappa([0, 1, 2], [0, 1, 2], weights="linear") == 1.0
    near, far = cohen_kappa([0, 1, 2, 2], [0, 1, 2, 1], weights="linear"), cohen_kappa([0, 1, 2, 2], [0, 1, 2, 0])
    assert near > far


def test_agreement_without_any_difference_is_undefined() -> None:
    for call in (
        lambda: cohen_kappa(["a", "a"], ["a", "a"]),
        lambda: fleiss_kappa([[3, 0], [3, 0]]),
        lambda: krippendorff_alpha([[1, 1], [1, 1]]),
        lambda: krippendorff_alpha([[1, np.nan], [np.nan, 2]]),
        lambda: cohen_kappa([], []),
    ):
        with pytest.raises(DataError, match="undefined"):
            call()
    with pytest.raises(DataError, match="rank agreement is undefined"):
        kendall_tau_b([1, 1, 1], [1, 2, 3])


def test_labels_of_any_kind() -> None:
    codes, categories = encode(np.array([["b", None], ["a", "b"]], dtype=object))
    assert categories == ["a", "b"]
    assert codes.tolist() == [[1, -1], [0, 1]]
    words = np.array([["a", "a"], ["b", "b"], ["a", "b"]], dtype=object)
    numbers = [[0, 0], [1, 1], [0, 1]]
    assert krippendorff_alpha(words) == krippendorff_alpha(numbers)
    with pytest.raises(DataError, match="no numbers"):
        krippendorff_alpha(words, level="interval")
    with pytest.raises(DataError, match="different kinds"):
        krippendorff_alpha(np.array([["a", 1], ["b", 2]], dtype=object))
    with pytest.raises(UsageError, match="no level"):
        krippendorff_alpha(numbers, level="cardinal")  # type: ignore[arg-type]


def test_fleiss_refuses_holes() -> None:
    with pytest.raises(DataError, match="different numbers of raters"):
        fleiss_kappa([[3, 0], [1, 1]])
    for bad in ([[-1, 3]], [[float("nan"), 1]], [1, 2]):
        with pytest.raises(DataError, match="no table"):
            fleiss_kappa(bad)


def test_independent_raters_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    ratings = rng.integers(0, 3, (3000, 2))
    interval = bootstrap_interval(krippendorff_alpha, ratings, samples=200, seed=1)
    assert interval.low < 0 < interval.high
    assert abs(interval.value) < 0.05
    assert abs(cohen_kappa(ratings[:, 0].tolist(), ratings[:, 1].tolist())) < 0.05


def test_bootstrap_is_seeded_and_counts_undefined_samples() -> None:
    few = np.array([[0, 0], [0, 0], [1, 1]])
    one, again = (bootstrap_interval(krippendorff_alpha, few, samples=100, seed=5) for _ in range(2))
    assert one == again
    assert one.undefined > 0
    with pytest.raises(UsageError, match="samples is 0"):
        bootstrap_interval(krippendorff_alpha, few, samples=0)
    with pytest.raises(DataError, match="most samples"):
        bootstrap_interval(krippendorff_alpha, np.array([[0, 0], [1, 1]] + [[np.nan, 0]] * 30), samples=50)


def test_pairwise_accuracy_halves_ties_and_drops_pairs_without_gold() -> None:
    share = pairwise_accuracy([2.0, -0.1, 0.0, 3.0, 1.0], [1, 1, -1, 1, 0])
    assert (share.right, share.count) == (2.5, 4)
    assert share.low < 0.625 < share.high
    with pytest.raises(DataError, match="not finite"):
        pairwise_accuracy([math.nan], [1])
    with pytest.raises(DataError, match="differ in length"):
        pairwise_accuracy([1.0], [1, 2])


def test_wilson_by_hand() -> None:
    share = wilson(0, 10)
    z2 = 1.959963984540054**2
    assert (share.low, share.high) == pytest.approx((0.0, (z2 / 10) / (1 + z2 / 10)), abs=1e-12)
    for right, count, level in ((3, 2, 0.95), (0, 0, 0.95), (-1, 2, 0.95)):
        with pytest.raises(DataError, match="no share"):
            wilson(right, count, level)
    with pytest.raises(UsageError, match="level is 1"):
        wilson(1, 2, 1.0)
