"""Best of N: the estimator against all subsets, the protocol against the estimator."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from alignite.errors import UsageError
from alignite.evaluation.best_of_n import Pool, best_of_n_curve, best_of_n_trials, expected_best


def test_the_estimator_is_the_mean_over_all_subsets() -> None:
    generator = np.random.default_rng(0)
    scores, values = generator.normal(size=7), generator.normal(size=7)
    for n in range(1, 8):
        sets = [list(chosen) for chosen in combinations(range(7), n)]
        brute = np.mean([values[chosen][np.argmax(scores[chosen])] for chosen in sets])
        assert expected_best(scores, values, n) == pytest.approx(brute, abs=1e-12)
        assert expected_best(scores, n=n) == pytest.approx(np.mean([scores[chosen].max() for chosen in sets]))


def test_equal_scores_share() -> None:
    # Of two equal ones each is taken half of the time, in whatever order they stand.
    for values in ([1.0, 0.0], [0.0, 1.0]):
        assert expected_best([5.0, 5.0], values, 2) == pytest.approx(0.5)
    assert expected_best([1, 2, 2], [9.0, 0.0, 1.0], 3) == pytest.approx(0.5)


def test_the_curve_of_an_oracle_is_the_share_with_any_right_answer() -> None:
    right = np.array([0.0, 0.0, 1.0, 0.0])
    curve = best_of_n_curve([Pool(right, right), Pool(np.zeros(4), np.zeros(4))])
    assert curve == pytest.approx({1: 1 / 8, 2: 2 / 8, 3: 3 / 8, 4: 4 / 8})
    # Without an answer: left out, and a problem with none at all is not solved.
    nan = np.nan
    pools = [Pool(np.array([9.0, 1.0]), np.array([nan, 1.0])), Pool(np.array([1.0]), np.array([nan]))]
    assert best_of_n_curve(pools, [2]) == {2: 0.5}


def test_random_subsets_agree_with_the_estimator() -> None:
    generator = np.random.default_rng(3)
    pools = [Pool(generator.normal(size=12), generator.integers(0, 2, 12).astype(float)) for _ in range(20)]
    found = best_of_n_trials(pools, [1, 4, 12], trials=400, seed=1)
    curve = best_of_n_curve(pools, [1, 4, 12])
    for n, (mean, deviation) in found.items():
        assert abs(mean - curve[n]) <= 4 * deviation / 20 + 1e-12
    assert found[12][1] == pytest.approx(0, abs=1e-12)
    assert found == best_of_n_trials(pools, [1, 4, 12], trials=400, seed=1)
    skipped = best_of_n_trials([Pool(np.array([9.0, 1.0]), np.array([np.nan, 1.0]))], [1, 2], trials=50)
    assert skipped[2] == (1.0, 0.0)
    assert 0 < skipped[1][0] < 1


def test_what_cannot_be_asked() -> None:
    for n in (0, 3):
        with pytest.raises(UsageError):
            expected_best([1, 2], n=n)
    with pytest.raises(UsageError):
        expected_best([1, np.nan], n=1)
    with pytest.raises(UsageError):
        best_of_n_curve([])
    with pytest.raises(UsageError):
        best_of_n_trials([Pool(np.zeros(2), np.zeros(2))], [3])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_told_and_one_without_an_answer_is_not_asked_for(bad: float) -> None:
    good = Pool(np.array([0.1, 0.9]), np.array([0.0, 1.0]))
    wrong = Pool(np.array([0.1, bad]), np.array([0.0, 1.0]))
    for ask in (lambda pools: best_of_n_trials(pools, [1, 2], trials=2), best_of_n_curve):
        with pytest.raises(UsageError, match="problem 1: the score of sample 1 is"):
            ask([good, wrong])
        with pytest.raises(UsageError, match="problem 0: scores are of shape"):
            ask([Pool(np.zeros(3), np.zeros(2))])
    if np.isinf(bad):
        with pytest.raises(UsageError, match="problem 0: the value of sample 1 is"):
            best_of_n_curve([Pool(np.zeros(2), np.array([0.0, bad]))])
    unanswered = Pool(np.array([0.1, bad]), np.array([1.0, np.nan]))
    assert best_of_n_trials([unanswered], [2], trials=2) == {2: (1.0, 0.0)}
    assert best_of_n_curve([unanswered], [2]) == {2: 1.0}
