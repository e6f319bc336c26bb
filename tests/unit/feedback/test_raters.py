"""Raters: rows, screening, hidden gold, super raters, Dawid and Skene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignite.errors import DataError, UsageError
from alignite.feedback.agreement import fleiss_kappa, krippendorff_alpha
from alignite.feedback.dawid_skene import dawid_skene, soft_labels
from alignite.feedback.raters import Ratings, report, screen, super_raters, with_hidden_gold


def crowd(skills: dict[str, float], items: int, seed: int, gold: int = 0) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Ratings of binary items by raters who are right with these chances; the first ``gold`` items have answers."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, items)
    rows = [
        {
            "item": item,
            "rater": rater,
            "pair": int(truth[item] if rng.random() < skill else 1 - truth[item]),
            "gold": int(truth[item]) if item < gold else None,
        }
        for rater, skill in skills.items()
        for item in range(items)
    ]
    return rows, truth


def test_ranks_become_pairs() -> None:
    ratings = Ratings.of(
        [
            {"item": "q", "rater": "r", "rank": [2, 1, 2], "gold": [1, 2, 3]},
            {"item": "q", "rater": "s", "rank": [1, 2, 3]},
        ]
    )
    assert set(ratings.items) == {("q", 0, 1), ("q", 0, 2), ("q", 1, 2)}
    said = {
        (ratings.items[i], ratings.raters[r]): ratings.labels[x]
        for i, r, x in zip(ratings.item, ratings.rater, ratings.label, strict=True)
    }
    assert said[("q", 0, 1), "r"] == 0.0
    assert said[("q", 0, 2), "r"] == 0.5
    assert said[("q", 1, 2), "r"] == 1.0
    assert [said[("q", i, j), "s"] for i, j in ((0, 1), (0, 2), (1, 2))] == [1.0, 1.0, 1.0]
    assert {found.rater: found.gold.right for found in report(ratings) if found.gold} == {"r": 1, "s": 3}


def test_tables_for_the_agreement_measures() -> None:
    rows = [
        {"item": i, "rater": r, "label": "ab"[(i + r) % 2 if i == 0 else i % 2]} for i in range(4) for r in range(3)
    ]
    ratings = Ratings.of(rows)
    assert ratings.counts().tolist() == [[2, 1], [0, 3], [3, 0], [0, 3]]
    assert 0 < fleiss_kappa(ratings.counts()) < 1
    assert 0 < krippendorff_alpha(ratings.table()) < 1
    holes = Ratings.of(rows[:-1])
    assert holes.table()[3].tolist() == ["b", "b", None]


def test_a_report_by_rater() -> None:
    rows = [
        {"item": 1, "rater": "a", "label": "x", "gold": "x"},
        {"item": 2, "rater": "a", "label": "y", "gold": "x"},
        {"item": 1, "rater": "b", "label": "x"},
        {"item": 3, "rater": "b", "label": "x"},
        {"item": 3, "rater": "c", "label": "y"},
        {"item": 4, "rater": "d", "label": "y"},
    ]
    a, b, c, d = report(Ratings.of(rows))
    assert (a.rater, a.count, a.label_shares) == ("a", 2, {"x": 0.5, "y": 0.5})
    assert a.gold is not None
    assert (a.gold.right, a.gold.count) == (1, 2)
    assert b.peers is not None
    assert (b.peers.right, b.peers.count) == (1, 2)
    assert c.gold is None
    assert c.kappa is None
    assert d.peers is None


def test_screening_has_a_soft_cut() -> None:
    rows, _ = crowd({"good": 0.95, "bad": 0.3}, 100, 0, gold=40)
    rows += [{"item": item, "rater": "few", "pair": pair, "gold": 1} for item, pair in (("g1", 1), ("g2", 0))]
    rows += [{"item": "other", "rater": "new", "pair": 1}]
    verdicts = screen(Ratings.of(rows))
    assert verdicts == {"good": "pass", "bad": "fail", "few": "borderline", "new": "no gold"}
    with pytest.raises(UsageError, match="cut is 75"):
        screen(Ratings.of(rows), cut=75)
    with pytest.raises(DataError, match="no item has a gold answer"):
        screen(Ratings.of(rows[-1:]))


def test_super_raters_need_enough_gold_and_a_high_bound() -> None:
    rows, _ = crowd({"best": 1.0, "good": 0.93, "fair": 0.8}, 200, 1, gold=100)
    rows += [{"item": f"g{n}", "rater": "lucky", "pair": 1, "gold": 1} for n in range(5)]
    ratings = Ratings.of(rows)
    assert super_raters(ratings) == ["best", "good"]
    assert super_raters(ratings, k=1) == ["best"]
    assert "lucky" in super_raters(ratings, n_min=5, tau=0.5)
    assert super_raters(ratings, tau=0.99) == []
    with pytest.raises(UsageError, match="n_min is 0"):
        super_raters(ratings, n_min=0)


def test_hidden_gold_is_a_share_of_the_queue() -> None:
    queue = with_hidden_gold(list(range(90)), ["g1", "g2", "g3"], share=0.1, seed=4)
    assert len(queue) == 100
    assert [item for item, gold in queue if not gold] == list(range(90))
    hidden = [item for item, gold in queue if gold]
    assert len(hidden) == 10
    assert all(sorted(hidden[at : at + 3]) == ["g1", "g2", "g3"] for at in (0, 3, 6))
    assert queue == with_hidden_gold(list(range(90)), ["g1", "g2", "g3"], share=0.1, seed=4)
    assert queue != with_hidden_gold(list(range(90)), ["g1", "g2", "g3"], share=0.1, seed=5)
    assert with_hidden_gold([1, 2], [], share=0) == [(1, False), (2, False)]
    for options in ({"share": 1.0}, {"share": 0.5}):
        with pytest.raises(UsageError):
            with_hidden_gold([1, 2], [], **options)


def test_dawid_skene_recovers_planted_confusions() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 3000)
    confusions = np.array(
        [
            [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9]],
            [[0.6, 0.3, 0.1], [0.0, 0.9, 0.1], [0.2, 0.2, 0.6]],
            [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.1, 0.0, 0.9]],
        ]
    )
    rows = [
        {"item": item, "rater": rater, "label": int(rng.choice(3, p=confusions[rater, label]))}
        for rater in range(3)
        for item, label in enumerate(truth)
    ]
    ratings = Ratings.of(rows)
    fit = dawid_skene(ratings, max_iter=500, tol=1e-9)
    assert fit.converged
    assert fit.confusion == pytest.approx(confusions, abs=0.08)
    assert (np.diff(fit.log_likelihood) > -1e-6).all()
    assert fit.posterior.sum(axis=1) == pytest.approx(np.ones(3000))
    votes = ratings.counts().argmax(axis=1)
    right = truth[list(ratings.items)]
    assert (fit.posterior.argmax(axis=1) == right).mean() > (votes == right).mean()


def test_smoothing_adds_ratings_to_every_cell() -> None:
    rows = [{"item": item, "rater": "r", "label": item % 2} for item in range(6)]
    plain, smooth = (dawid_skene(Ratings.of(rows), max_iter=1, smoothing=smoothing) for smoothing in (0.0, 1.0))
    assert plain.confusion[0] == pytest.approx(np.eye(2), abs=1e-6)
    # After the votes: (3 + 1) / (3 + 2). Posteriors are .8 and .2 then, and 2.4 + .6 ratings are spread again.
    wrong = (3 * 0.2 + 1) / (3 + 2)
    assert smooth.confusion[0] == pytest.approx(np.array([[1 - wrong, wrong], [wrong, 1 - wrong]]), abs=1e-12)


def test_soft_labels_trust_good_raters_more_than_a_bad_majority() -> None:
    rows, truth = crowd({"a": 0.95, "b": 0.9, "c": 0.52, "d": 0.5, "e": 0.5}, 600, 5, gold=50)
    ratings = Ratings.of(rows)
    for options in ({}, {"use_gold": True}, {"smoothing": 1.0}):
        p = soft_labels(ratings, **options)  # type: ignore[arg-type]
        right = np.mean([(p[item] > 0.5) == bool(truth[item]) for item in range(600)])
        votes = soft_labels(ratings, method="votes")
        assert right > np.mean([(votes[item] > 0.5) == bool(truth[item]) for item in range(600)])
        assert all(0 <= value <= 1 for value in p.values())
    assert [soft_labels(ratings, use_gold=True)[item] for item in range(50)] == truth[:50].tolist()
    tie = Ratings.of([{"item": 1, "rater": r, "pair": pair} for r, pair in enumerate((1, 0.5))])
    assert soft_labels(tie, method="votes") == {1: 0.75}
    with pytest.raises(DataError, match="nothing about pairs"):
        soft_labels(Ratings.of([{"item": 1, "rater": 2, "label": "x"}]))
    with pytest.raises(UsageError, match="max_iter is 0"):
        dawid_skene(tie, max_iter=0)
