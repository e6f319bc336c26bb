"""Statistics of feedback against krippendorff, statsmodels, scikit-learn, scipy, choix, evalica and crowd-kit."""

from __future__ import annotations

import math
from typing import Any

import choix
import evalica
import krippendorff
import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene as CrowdKit
from scipy.optimize import minimize
from scipy.stats import kendalltau
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats import inter_rater
from statsmodels.stats.proportion import proportion_confint

from alignite.feedback.agreement import cohen_kappa, fleiss_kappa, kendall_tau_b, krippendorff_alpha, wilson
from alignite.feedback.dawid_skene import dawid_skene
from alignite.feedback.rankings import Comparisons, elo
from alignite.feedback.raters import Ratings
from alignite.feedback.strengths import Strengths, bradley_terry, plackett_luce

N = 7


def duels(seed: int, count: int = 500, ties: float = 0.0) -> list[tuple[int, int, float]]:
    rng = np.random.default_rng(seed)
    strengths = rng.normal(size=N)
    made = []
    for _ in range(count):
        i, j = (int(n) for n in rng.choice(N, 2, replace=False))
        won = float(rng.random() < 1 / (1 + math.exp(strengths[j] - strengths[i])))
        made.append((i, j, 0.5 if rng.random() < ties else won))
    return made


def in_order(fit: Strengths) -> Any:
    return fit.strengths[np.argsort(np.array(fit.items))]


def centred(strengths: Any) -> Any:
    return np.asarray(strengths) - np.mean(strengths)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval", "ratio"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_with_holes(level: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 5, (30, 4)).astype(float)
    ratings[:, 1] = np.where(rng.random(30) < 0.6, ratings[:, 0], ratings[:, 1])
    ratings[rng.random(ratings.shape) < 0.3] = np.nan
    theirs = krippendorff.alpha(reliability_data=ratings.T, level_of_measurement=level)
    assert krippendorff_alpha(ratings, level=level) == pytest.approx(theirs, abs=1e-9)


def test_alpha_of_krippendorffs_own_example() -> None:
    # Four observers, twelve units, with holes: .743 nominal, .815 ordinal, .849 interval, .797 ratio.
    nan = np.nan
    ratings = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
            [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
        ]
    ).T
    published: list[tuple[Any, float]] = [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
    for level, alpha in published:
        assert krippendorff_alpha(ratings, level=level) == pytest.approx(alpha, abs=6e-4)


@pytest.mark.parametrize("seed", range(4))
def test_kappas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 4, 80)
    other = np.where(rng.random(80) < 0.5, one, rng.integers(0, 4, 80))
    for weights in ("none", "linear", "quadratic"):
        theirs = cohen_kappa_score(one, other, weights=None if weights == "none" else weights)
        assert cohen_kappa(one, other, weights=weights) == pytest.approx(theirs, abs=1e-9)  # type: ignore[arg-type]
    table = np.zeros((4, 4))
    np.add.at(table, (one, other), 1)
    assert cohen_kappa(one, other) == pytest.approx(inter_rater.cohens_kappa(table).kappa, abs=1e-9)
    counts = rng.multinomial(6, [0.2, 0.5, 0.3], 40)
    assert fleiss_kappa(counts) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)


def test_wilson_bounds() -> None:
    for right, count, level in [(0, 5, 0.95), (3, 7, 0.95), (75, 100, 0.9), (12, 12, 0.99)]:
        low, high = proportion_confint(right, count, alpha=1 - level, method="wilson")
        share = wilson(right, count, level)
        assert (share.low, share.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("kinds", [3, 1000])
def test_tau_b_with_and_without_ties(kinds: int) -> None:
    rng = np.random.default_rng(kinds)
    one, other = rng.integers(0, kinds, 400), rng.integers(0, kinds, 400)
    other[:200] = one[:200]
    assert kendall_tau_b(one, other) == pytest.approx(kendalltau(one, other).statistic, abs=1e-9)


def test_bradley_terry_without_ties() -> None:
    made = duels(1)
    fit = bradley_terry(Comparisons.of(made))
    pairs = [(i, j) if won else (j, i) for i, j, won in made]
    theirs = choix.opt_pairwise(N, pairs, alpha=0.0, tol=1e-12)
    assert in_order(fit) == pytest.approx(centred(theirs), abs=1e-6)
    assert fit.log_likelihood == pytest.approx(choix.log_likelihood_pairwise(pairs, theirs), abs=1e-6)
    winners = [evalica.Winner.X if won else evalica.Winner.Y for _, _, won in made]
    scores = evalica.bradley_terry([i for i, _, _ in made], [j for _, j, _ in made], winners, tolerance=1e-12).scores
    assert in_order(fit) == pytest.approx(centred(np.log(scores.sort_index())), abs=1e-6)


def test_bradley_terry_with_a_prior_where_choix_means_half_of_it() -> None:
    made = [(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)]
    pairs = [(i, j) for i, j, _ in made]
    fit = bradley_terry(Comparisons.of(made), l2=0.2)
    assert in_order(fit) == pytest.approx(choix.opt_pairwise(4, pairs, alpha=0.1, tol=1e-12), abs=1e-6)
    # choix documents variance 1 / alpha and penalises alpha s^2, which is variance 1 / (2 alpha).
    assert in_order(fit) != pytest.approx(choix.opt_pairwise(4, pairs, alpha=0.2, tol=1e-12), abs=1e-2)


def test_bradley_terry_with_ties_as_half_wins() -> None:
    made = duels(2, ties=0.3)
    kinds = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    scores = evalica.bradley_terry(
        [i for i, _, _ in made], [j for _, j, _ in made], [kinds[won] for _, _, won in made], tolerance=1e-12
    ).scores
    fit = bradley_terry(Comparisons.of(made))
    assert in_order(fit) == pytest.approx(centred(np.log(scores.sort_index())), abs=1e-6)


def test_davidson_against_a_general_optimizer() -> None:
    made = duels(3, count=300, ties=0.25)
    fit = bradley_terry(Comparisons.of(made), ties="davidson")

    def loss(x: Any) -> float:
        total = 0.0
        for i, j, won in made:
            a, b, tie = x[i], x[j], x[N] + (x[i] + x[j]) / 2
            said = {1.0: a, 0.0: b, 0.5: tie}[won]
            total -= said - np.logaddexp(np.logaddexp(a, b), tie)
        return total + 1e-9 * float(x[:N] @ x[:N])

    found = minimize(loss, np.zeros(N + 1), method="BFGS", options={"gtol": 1e-7})
    assert in_order(fit) == pytest.approx(centred(found.x[:N]), abs=1e-5)
    assert fit.tie == pytest.approx(math.exp(found.x[N]), abs=1e-5)
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-6)


def test_plackett_luce() -> None:
    rng = np.random.default_rng(4)
    rankings = [[int(i) for i in rng.permutation(N)[: rng.integers(2, N)]] for _ in range(150)]
    theirs = choix.opt_rankings(N, rankings, alpha=0.0, tol=1e-12)
    fit = plackett_luce(rankings)
    assert in_order(fit) == pytest.approx(centred(theirs), abs=1e-6)
    assert fit.log_likelihood == pytest.approx(choix.log_likelihood_rankings(rankings, theirs), abs=1e-6)


def test_elo() -> None:
    made = duels(5, ties=0.2)
    kinds = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    theirs = evalica.elo(
        [i for i, _, _ in made],
        [j for _, j, _ in made],
        [kinds[won] for _, _, won in made],
        initial=1500.0,
        k=32.0,
    ).scores.sort_index()
    comparisons = Comparisons.of(made)
    ours = elo(comparisons)[np.argsort(np.array(comparisons.items))]
    assert ours == pytest.approx(theirs.to_numpy(), abs=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # how crowd-kit uses pandas
@pytest.mark.parametrize("with_gold", [False, True])
def test_dawid_skene(with_gold: bool) -> None:
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 60)
    rows: list[dict[str, Any]] = []
    for rater, skill in enumerate([0.9, 0.7, 0.5, 0.6]):
        for item, label in enumerate(truth):
            if rng.random() < 0.8 or item < 6:
                said = int(label) if rng.random() < skill else int(rng.integers(0, 3))
                gold = {"gold": int(label)} if with_gold and item < 6 else {}
                rows.append({"item": item, "rater": rater, "label": said, **gold})
    frame = pd.DataFrame([{"task": row["item"], "worker": row["rater"], "label": row["label"]} for row in rows])
    theirs = CrowdKit(n_iter=12, tol=-np.inf)
    theirs.fit(frame, pd.Series({i: int(truth[i]) for i in range(6)}) if with_gold else None)
    ratings = Ratings.of(rows)
    ours = dawid_skene(ratings, max_iter=12, tol=0.0, use_gold=with_gold)
    posterior = theirs.probas_.loc[list(ratings.items), list(ratings.labels)].to_numpy()
    assert ours.posterior == pytest.approx(posterior, abs=1e-9)
    errors = theirs.errors_
    for rater in range(4):
        block = errors.loc[ratings.raters[rater]].loc[list(ratings.labels), list(ratings.labels)].to_numpy()
        assert ours.confusion[rater] == pytest.approx(block.T, abs=1e-9)
    assert ours.prior == pytest.approx(theirs.priors_.loc[list(ratings.labels)].to_numpy(), abs=1e-9)
