"""Bradley-Terry, Davidson and Plackett-Luce fits: what they recover, their intervals, and when there is no fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignite.errors import DataError, ResourceError, UsageError
from alignite.feedback.rankings import ELO_PER_NAT, Comparisons, elo_expected
from alignite.feedback.strengths import MOST_ITEMS, bradley_terry, plackett_luce

TRUE = np.array([1.2, 0.4, 0.0, -0.5, -1.1])


def duels(count: int, seed: int, nu: float = 0.0) -> Comparisons:
    """Comparisons of five items drawn from Davidson's model; nu = 0 is Bradley and Terry's."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 5, count)
    second = (first + rng.integers(1, 5, count)) % 5
    half = (TRUE[first] - TRUE[second]) / 2
    win, loss = np.exp(half), np.exp(-half)
    draw = rng.random(count) * (win + loss + nu)
    outcome = np.where(draw < win, 1.0, np.where(draw < win + loss, 0.0, 0.5))
    return Comparisons(tuple(range(5)), first, second, outcome)


def test_planted_strengths_lie_in_their_intervals() -> None:
    inside = 0
    for seed in range(40):
        fit = bradley_terry(duels(400, seed))
        low, high = fit.intervals(0.9).T
        inside += int(((low < TRUE) & (high > TRUE)).sum())
    assert 0.84 < inside / 200 < 0.96


def test_fishers_and_the_bootstraps_intervals_agree() -> None:
    comparisons = duels(2000, 1)
    fisher = bradley_terry(comparisons).intervals(0.9)
    drawn = bradley_terry(comparisons, bootstrap=200, level=0.9, seed=3)
    assert drawn.failed == 0
    assert drawn.intervals() == pytest.approx(fisher, abs=0.05)
    again = bradley_terry(comparisons, bootstrap=200, level=0.9, seed=3)
    assert (again.intervals() == drawn.intervals()).all()


def test_two_items_by_hand() -> None:
    fit = bradley_terry(Comparisons.of([("a", "b", 1.0)] * 3 + [("a", "b", 0.0)]))
    gap, low, high = fit.difference("a", "b")
    assert gap == pytest.approx(math.log(3), abs=1e-9)
    # The information about the gap is n p (1 - p) = .75.
    assert high - gap == gap - low == pytest.approx(1.959963984540054 / math.sqrt(0.75), abs=1e-6)
    assert fit.probability("a", "b") == pytest.approx(0.75, abs=1e-9)
    assert elo_expected(*fit.elo()) == pytest.approx(0.75, abs=1e-9)
    assert fit.elo(1000).mean() == pytest.approx(1000)
    assert fit.elo()[0] - fit.elo()[1] == pytest.approx(math.log(3) * ELO_PER_NAT, abs=1e-6)
    with pytest.raises(UsageError, match="no item 'c'"):
        fit.probability("a", "c")


def test_soft_outcomes_count_as_their_share() -> None:
    soft = bradley_terry(Comparisons.of([("a", "b", 0.75)]))
    assert soft.probability("a", "b") == pytest.approx(0.75, abs=1e-9)


def test_davidson_recovers_strengths_and_ties() -> None:
    fit = bradley_terry(duels(20_000, 2, nu=0.8), ties="davidson")
    assert fit.tie == pytest.approx(0.8, abs=0.05)
    assert fit.strengths == pytest.approx(TRUE, abs=0.1)
    wins, losses = fit.probability(0, 4), fit.probability(4, 0)
    half = math.exp((fit.strengths[0] - fit.strengths[4]) / 2)
    assert 1 - wins - losses == pytest.approx(fit.tie / (half + 1 / half + fit.tie), abs=1e-9)
    # Without ties both models are one.
    plain = duels(500, 3)
    assert bradley_terry(plain, ties="davidson").strengths == pytest.approx(bradley_terry(plain).strengths, abs=1e-9)


def test_davidsons_covariance_is_the_inverse_of_the_curvature() -> None:
    comparisons = duels(2000, 4, nu=0.6)
    fit = bradley_terry(comparisons, ties="davidson")
    first, second, outcome = comparisons.first, comparisons.second, comparisons.outcome

    def likelihood(x: np.ndarray) -> float:
        half = (x[first] - x[second]) / 2
        log_z = np.log(np.exp(half) + np.exp(-half) + np.exp(x[5]))
        said = np.where(outcome == 0.5, x[5], np.where(outcome == 1, half, -half))
        return float((said - log_z).sum())

    top, size = np.append(fit.strengths, math.log(fit.tie)), 1e-3
    steps = np.eye(6) * size
    curve = np.array(
        [
            [
                likelihood(top + a + b) - likelihood(top + a - b) - likelihood(top - a + b) + likelihood(top - a - b)
                for a in steps
            ]
            for b in steps
        ]
    ) / (-4 * size**2)
    # Strengths that sum to 0: the first four of them and nu are free.
    free = np.zeros((6, 5))
    free[:4, :4], free[4, :4], free[5, 4] = np.eye(4), -1.0, 1.0
    covariance = (free @ np.linalg.inv(free.T @ curve @ free) @ free.T)[:5, :5]
    assert fit.covariance == pytest.approx(covariance, rel=1e-3, abs=1e-7)


def test_the_fit_is_the_top_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(5)[: rng.integers(2, 6)].tolist() for _ in range(60)]
    fit = plackett_luce(rankings)
    numbers = {item: index for index, item in enumerate(fit.items)}

    def likelihood(s: np.ndarray) -> float:
        total = 0.0
        for ranking in rankings:
            own = s[[numbers[item] for item in ranking]]
            total += sum(own[t] - math.log(np.exp(own[t:]).sum()) for t in range(len(own) - 1))
        return total

    top = likelihood(fit.strengths)
    assert fit.log_likelihood == pytest.approx(top, abs=1e-9)
    for _ in range(20):
        assert likelihood(fit.strengths + 0.05 * rng.normal(size=5)) < top
    # The covariance is the inverse of the curvature, seen along one direction.
    step = np.array([1.0, -1.0, 0, 0, 0]) * 1e-3
    curve = -(likelihood(fit.strengths + step) - 2 * top + likelihood(fit.strengths - step))
    assert curve == pytest.approx(float(step @ np.linalg.pinv(fit.covariance, rcond=1e-9) @ step), rel=1e-4)


def test_plackett_luce_of_pairs_is_bradley_terry() -> None:
    comparisons = duels(300, 5)
    pairs = [(int(i), int(j)) for i, j in zip(comparisons.first, comparisons.second, strict=True)]
    rankings = [pair if won else pair[::-1] for pair, won in zip(pairs, comparisons.outcome, strict=True)]
    fit = plackett_luce(rankings)
    order = np.argsort(np.array(fit.items))
    assert fit.strengths[order] == pytest.approx(bradley_terry(comparisons).strengths, abs=1e-9)
    assert np.sqrt(np.diag(fit.covariance))[order] == pytest.approx(
        np.sqrt(np.diag(bradley_terry(comparisons).covariance)), abs=1e-9
    )


def test_items_without_a_finite_strength_are_named() -> None:
    never_lost = Comparisons.of([("a", "b", 1.0), ("b", "c", 1.0), ("c", "b", 1.0)])
    with pytest.raises(DataError, match="no finite strengths") as caught:
        bradley_terry(never_lost)
    assert "'b'" in str(caught.value)
    assert "'a'" in str(caught.value)
    apart = Comparisons.of([("a", "b", 0.5), ("c", "d", 0.5)])
    with pytest.raises(DataError, match="no finite strengths"):
        bradley_terry(apart)
    with pytest.raises(DataError, match="no finite strengths"):
        plackett_luce([["a", "b", "c"]])
    for fit in (bradley_terry(never_lost, l2=0.01), bradley_terry(apart, l2=0.01), plackett_luce([["a", "b"]], l2=0.1)):
        assert np.isfinite(fit.strengths).all()
        assert np.isfinite(fit.intervals()).all()
        assert fit.strengths.sum() == pytest.approx(0.0, abs=1e-9)
    assert bradley_terry(never_lost, l2=0.01).strengths[0] > 1


def test_davidson_takes_no_tie_for_a_loss() -> None:
    # "a" wins or ties: its strength and nu grow together without end, though every pair has a tie.
    with pytest.raises(DataError, match="Davidson"):
        bradley_terry(Comparisons.of([("a", "b", 1.0), ("a", "b", 0.5)]), ties="davidson")
    # A circle of a win, a tie and a win back holds them.
    circle = Comparisons.of([("a", "b", 1.0), ("b", "c", 0.5), ("c", "a", 1.0)])
    assert np.isfinite(bradley_terry(circle, ties="davidson").strengths).all()
    with pytest.raises(DataError, match="every comparison is a tie"):
        bradley_terry(Comparisons.of([("a", "b", 0.5)]), ties="davidson")
    with pytest.raises(DataError, match=r"an outcome is 0\.7"):
        bradley_terry(Comparisons.of([("a", "b", 0.7), ("a", "b", 0.0)]), ties="davidson")


def test_a_bootstrap_says_how_often_it_failed() -> None:
    rare = [("a", "b", 1.0)] * 6 + [("a", "b", 0.0)] * 2
    fit = bradley_terry(Comparisons.of(rare), bootstrap=100, seed=1)
    assert 0 < fit.failed < 50
    assert bradley_terry(Comparisons.of(rare), bootstrap=50, l2=0.1).failed == 0
    with pytest.raises(DataError, match="bootstrap samples have no finite strengths"):
        bradley_terry(Comparisons.of([("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0)]), bootstrap=50)


def test_options_and_sizes_are_checked() -> None:
    for options in ({"l2": -1.0}, {"level": 1.0}, {"bootstrap": -1}):
        with pytest.raises(UsageError, match="l2 is"):
            bradley_terry(duels(20, 0), **options)  # type: ignore[arg-type]
    many = tuple(range(MOST_ITEMS + 1))
    zeros = np.zeros(1, dtype=np.int64)
    with pytest.raises(ResourceError, match="items to fit"):
        bradley_terry(Comparisons(many, zeros, zeros + 1, zeros + 0.5))
    for bad in ([["a"]], [["a", "b", "a"]], []):
        with pytest.raises(DataError):
            plackett_luce(bad)
