"""What must hold of feedback statistics whatever the data are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignite.errors import DataError
from alignite.feedback.agreement import cohen_kappa, fleiss_kappa, kendall_tau_b, krippendorff_alpha, wilson
from alignite.feedback.annotate import annotate, swapped_mean
from alignite.feedback.dawid_skene import dawid_skene
from alignite.feedback.rankings import Comparisons, elo, pairs_from_rankings
from alignite.feedback.raters import Ratings
from alignite.feedback.rules import RuleScores, sparrow_rerank
from alignite.feedback.strengths import bradley_terry, plackett_luce

chances = st.floats(0, 1)
games = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.5, 1.0])).filter(
        lambda game: game[0] != game[1]
    ),
    min_size=3,
    max_size=25,
)


@settings(deadline=None)
@given(games, st.randoms(use_true_random=False), st.sampled_from(["half", "davidson"]))
def test_bradley_terry_sees_no_order_no_sides_and_no_names(made: Any, random: Any, ties: Any) -> None:
    if ties == "davidson":
        made = [(i, j, 0.5 if outcome == 0.25 else outcome) for i, j, outcome in made]
        assume(any(outcome != 0.5 for _, _, outcome in made))
    fit = bradley_terry(Comparisons.of(made), l2=0.1, ties=ties)
    other = [(j, i, 1 - outcome) if random.random() < 0.5 else (i, j, outcome) for i, j, outcome in made]
    random.shuffle(other)
    again = bradley_terry(Comparisons.of([(f"n{i}", f"n{j}", outcome) for i, j, outcome in other]), l2=0.1, ties=ties)
    theirs = dict(zip(again.items, again.strengths, strict=True))
    assert [theirs[f"n{item}"] for item in fit.items] == pytest.approx(fit.strengths.tolist(), abs=1e-7)
    assert again.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-7)


@settings(deadline=None)
@given(games)
def test_a_fit_is_finite_or_an_error(made: Any) -> None:
    try:
        fit = bradley_terry(Comparisons.of(made))
    except DataError:
        return
    assert np.abs(fit.strengths).max() < 30
    assert np.isfinite(fit.intervals()).all()
    # At the top of the likelihood everybody won as often as the fit expects.
    for item in range(5):
        if item in fit.items:
            won = sum(o if i == item else 1 - o for i, j, o in made if item in (i, j))
            others = [j if i == item else i for i, j, _ in made if item in (i, j)]
            assert sum(fit.probability(item, j) for j in others) == pytest.approx(won, abs=1e-6)


@settings(deadline=None)
@given(games)
def test_davidsons_fit_is_finite_or_an_error(made: Any) -> None:
    made = [(i, j, 0.5 if outcome == 0.25 else outcome) for i, j, outcome in made]
    try:
        fit = bradley_terry(Comparisons.of(made), ties="davidson")
    except DataError:
        return
    assert np.abs(fit.strengths).max() < 30
    assert fit.tie < 1e6


@given(st.lists(st.permutations(range(4)), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_plackett_luce_sees_no_order_of_rankings(rankings: Any, random: Any) -> None:
    fit = plackett_luce(rankings, l2=0.5)
    shuffled = list(rankings)
    random.shuffle(shuffled)
    again = plackett_luce(shuffled, l2=0.5)
    theirs = dict(zip(again.items, again.strengths, strict=True))
    assert [theirs[item] for item in fit.items] == pytest.approx(fit.strengths.tolist(), abs=1e-7)


@given(games)
def test_elo_moves_points_and_makes_none(made: Any) -> None:
    comparisons = Comparisons.of(made)
    assert elo(comparisons).sum() == pytest.approx(1500 * len(comparisons.items), abs=1e-6)


@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=6), max_size=8))
def test_pairs_follow_their_scores(rankings: list[list[int]]) -> None:
    pairs = pairs_from_rankings(rankings)
    assert len(pairs.gap) == sum(math.comb(len(scores), 2) for scores in rankings)
    for number, better, worse, gap, tie in zip(
        pairs.ranking, pairs.better, pairs.worse, pairs.gap, pairs.tie, strict=True
    ):
        scores = rankings[number]
        assert scores[better] > scores[worse] or (tie and scores[better] == scores[worse] and better < worse)
        assert gap == len({score for score in scores if scores[worse] < score <= scores[better]})


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.integers(2, 5))
def test_identical_raters_agree_wholly(labels: list[int], raters: int) -> None:
    assume(len(set(labels)) > 1)
    assert cohen_kappa(labels, labels) == 1.0
    table = np.repeat(np.array(labels)[:, None], raters, axis=1)
    for level in ("nominal", "ordinal", "interval", "ratio"):
        assert krippendorff_alpha(table, level=level) == pytest.approx(1.0, abs=1e-12)
    counts = np.eye(4)[labels] * raters
    assert fleiss_kappa(counts) == pytest.approx(1.0, abs=1e-12)
    assert kendall_tau_b(labels, labels) == pytest.approx(1.0, abs=1e-12)
    assert kendall_tau_b(labels, [-label for label in labels]) == pytest.approx(-1.0, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40))
def test_tau_is_what_all_pairs_say(scores: list[tuple[int, int]]) -> None:
    x, y = np.array(scores).T
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    signs = np.sign(np.subtract.outer(x, x)), np.sign(np.subtract.outer(y, y))
    by_pairs = (signs[0] * signs[1]).sum() / math.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    assert kendall_tau_b(x, y) == pytest.approx(by_pairs, abs=1e-12)


@given(st.integers(1, 1000), st.data(), st.floats(0.5, 0.999))
def test_wilsons_bounds_hold_the_share(count: int, data: Any, level: float) -> None:
    share = wilson(data.draw(st.integers(0, count)), count, level)
    assert 0 <= share.low <= share.share + 1e-12
    assert share.share - 1e-12 <= share.high <= 1 + 1e-12


@given(chances, chances)
def test_both_orders_averaged_are_antisymmetric_to_the_bit(p12: float, p21: float) -> None:
    assert swapped_mean(p12, p21) == 1 - swapped_mean(p21, p12)
    assert swapped_mean(p12, p21) == pytest.approx(0.5 * (p12 + 1 - p21), abs=1e-15)


@given(st.lists(st.tuples(chances, chances), min_size=1, max_size=10), st.sampled_from(["keep", "drop", "soften"]))
def test_exchanged_pairs_give_the_same_rows(orders: list[tuple[float, float]], what: Any) -> None:
    def judge(prompt: Any, first: Any, second: Any) -> float:
        return orders[int(prompt)][first == "b"]

    pairs = [{"prompt": str(n), "first": "a", "second": "b"} for n in range(len(orders))]
    swapped = [{"prompt": str(n), "first": "b", "second": "a"} for n in range(len(orders))]
    (one, first), (other, second) = (annotate(rows, judge, inconsistent=what) for rows in (pairs, swapped))
    assert [row["p"] for row in one] == [row["p"] for row in other]
    assert all(a == b for a, b in zip(one, other, strict=True) if a["p"] > 0.5)
    assert first.position_bias == second.position_bias
    assert first.first_share == pytest.approx(second.first_share, abs=1e-12)


@given(st.integers(1, 20), st.sampled_from(["keep", "soften"]))
def test_an_annotator_that_always_says_first_says_nothing(count: int, what: Any) -> None:
    pairs = [{"prompt": str(n), "first": "a", "second": "b"} for n in range(count)]
    made, report = annotate(pairs, lambda *_: 1.0, inconsistent=what)
    assert [row["p"] for row in made] == [0.5] * count
    assert (report.position_bias, report.first_share, report.ties) == (1.0, 1.0, count)


@given(st.lists(st.lists(st.floats(0, 0.99), min_size=3, max_size=3), min_size=2, max_size=8))
def test_a_rule_that_nobody_breaks_changes_no_order(violations: list[list[float]]) -> None:
    def rewards(table: np.ndarray) -> np.ndarray:
        n = table.shape[1]
        names = tuple(map(str, range(n)))
        return RuleScores(names, table, np.ones(n), ("callable",) * n, (0,) * n).rewards("geometric")

    table = np.array(violations)
    before, after = rewards(table), rewards(np.hstack([table, np.zeros((len(table), 1))]))
    for i in range(len(table)):
        for j in range(len(table)):
            if before[i] > before[j] + 1e-9:
                assert after[i] > after[j]
    flat = np.zeros(len(table))
    assert sparrow_rerank(flat, before) == pytest.approx(before / 2, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_dawid_skene_sees_no_names_and_no_order(seed: int, names: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = [{"item": i, "rater": r, "label": int(rng.integers(0, 3))} for i in range(12) for r in range(3)]
    rows += [{"item": "all", "rater": r, "label": label} for r, label in zip(range(3, 6), range(3), strict=True)]
    ratings = Ratings.of(rows)
    fit = dawid_skene(ratings, max_iter=5, tol=0.0)
    renamed = [{**row, "label": names[row["label"]]} for row in reversed(rows)]
    other = Ratings.of(renamed)
    again = dawid_skene(other, max_iter=5, tol=0.0)
    places = [other.items.index(item) for item in ratings.items]
    assert again.posterior[places][:, names] == pytest.approx(fit.posterior, abs=1e-6)
    assert again.log_likelihood[-1] == pytest.approx(fit.log_likelihood[-1], abs=1e-6)
