"""Pairs of rankings, comparisons, Elo."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignite.data.convert import convert_rows
from alignite.errors import DataError, UsageError
from alignite.feedback.rankings import (
    ELO_PER_NAT,
    Comparisons,
    elo,
    elo_expected,
    elo_update,
    pairs_from_rankings,
    rows_from_rankings,
)


def test_all_pairs_with_gaps_and_ties() -> None:
    pairs = pairs_from_rankings([[3.0, 1.0, 1.0, 0.0], [5.0, 9.0], [0.0, 2.0, 1.0, 3.0]])
    found = list(
        zip(*(column.tolist() for column in (pairs.ranking, pairs.better, pairs.worse, pairs.gap)), strict=True)
    )
    assert found[:6] == [(0, 0, 1, 1), (0, 0, 2, 1), (0, 0, 3, 2), (0, 1, 2, 0), (0, 1, 3, 1), (0, 2, 3, 1)]
    assert found[6] == (1, 1, 0, 1)
    assert sorted(found[7:]) == sorted(
        [(2, 1, 0, 2), (2, 2, 0, 1), (2, 3, 0, 3), (2, 1, 2, 1), (2, 3, 1, 1), (2, 3, 2, 2)]
    )
    assert pairs.tie.tolist() == [gap == 0 for *_, gap in found]
    assert len(pairs_from_rankings([[1.0, 1.0, 2.0]], ties="drop").gap) == 2
    assert len(pairs_from_rankings([]).gap) == 0


@pytest.mark.parametrize("k", range(2, 10))
def test_a_ranking_of_k_gives_k_over_two_pairs(k: int) -> None:
    scores = np.random.default_rng(k).permutation(k).astype(float)
    pairs = pairs_from_rankings([scores.tolist()] * 3)
    assert len(pairs.gap) == 3 * math.comb(k, 2)
    assert (scores[pairs.better] - scores[pairs.worse] == pairs.gap).all()


def test_ranked_rows_become_rows_that_the_data_engine_reads() -> None:
    rows = [
        {"prompt": "q", "completions": ["a", "b", "c"], "scores": [0, 2, 2]},
        {"prompt": "r", "completions": ["x", "y"], "ranks": [2, 1]},
    ]
    made, bad = rows_from_rankings(rows)
    assert made == [
        {"prompt": "q", "chosen": "b", "rejected": "a", "p": 1.0, "gap": 1},
        {"prompt": "q", "chosen": "c", "rejected": "a", "p": 1.0, "gap": 1},
        {"prompt": "q", "chosen": "b", "rejected": "c", "p": 0.5, "gap": 0},
        {"prompt": "r", "chosen": "y", "rejected": "x", "p": 1.0, "gap": 1},
    ]
    assert bad == {}
    assert [row["p"] for row in rows_from_rankings(rows, ties="drop")[0]] == [1.0, 1.0, 1.0]
    read, report = convert_rows(made, "preference")
    assert [(row["chosen"], row["p"]) for row in read] == [("b", 1.0), ("c", 1.0), ("b", 0.5), ("y", 1.0)]
    assert report.format == "preference"


def test_comparisons_number_items_as_they_come() -> None:
    comparisons = Comparisons.of([("b", "a", 1), ("a", "c", 0.5)])
    assert comparisons.items == ("b", "a", "c")
    assert comparisons.first.tolist() == [0, 1]
    assert comparisons.second.tolist() == [1, 2]
    assert len(comparisons) == 2
    ranked = Comparisons.of_rankings([["x", "y", "z"]])
    assert [(ranked.items[i], ranked.items[j]) for i, j in zip(ranked.first, ranked.second, strict=True)] == [
        ("x", "y"),
        ("x", "z"),
        ("y", "z"),
    ]
    with pytest.raises(DataError, match="compared with itself"):
        Comparisons.of([("a", "a", 1)])
    with pytest.raises(DataError, match="no comparisons"):
        Comparisons.of([])


def test_elo_golden_numbers() -> None:
    assert elo_update(1500, 1600, 1.0) == pytest.approx((1520.4820799936924, 1579.5179200063076), abs=1e-10)
    assert pytest.approx(173.71779276130073, abs=1e-12) == ELO_PER_NAT
    assert elo_expected(1500, 1500) == 0.5
    assert elo_expected(0, 1e9) == pytest.approx(0.0, abs=1e-200)
    # One nat is as likely in both units.
    assert elo_expected(1500 + ELO_PER_NAT, 1500) == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-12)


def test_elo_goes_through_games_in_order() -> None:
    games = [("a", "b", 1.0), ("b", "c", 0.5), ("c", "a", 0.0)]
    ratings = dict.fromkeys("abc", 1500.0)
    for one, other, outcome in games:
        ratings[one], ratings[other] = elo_update(ratings[one], ratings[other], outcome, k=20)
    comparisons = Comparisons.of(games)
    assert dict(zip(comparisons.items, elo(comparisons, k=20), strict=True)) == pytest.approx(ratings, abs=1e-9)
    backwards = Comparisons.of(games[::-1])
    assert dict(zip(backwards.items, elo(backwards, k=20), strict=True)) != pytest.approx(ratings, abs=1e-3)
    with pytest.raises(UsageError, match="k is 0"):
        elo(comparisons, k=0)
