"""Reports on reward models: by hand, against scipy, on rows of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, pearsonr, spearmanr

from alignite.data import ChatTokenizer
from alignite.errors import DataError, NumericsError, UsageError
from alignite.evaluation.intervals import wilson_interval
from alignite.evaluation.reward import (
    SelectHead,
    calibration,
    ensemble_disagreement,
    evaluate_reward,
    length_correlation,
    pair_accuracy,
)
from alignite.models.reward_files import load_reward_model
from alignite.scoring.reward import RewardModel


class Shouting:
    """Likes replies by their exclamation marks; with two heads, the second the other way round."""

    def __init__(self, heads: int = 1) -> None:
        self.heads = heads

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        marks = np.array([text.count("!") for text in completions], dtype=np.float64)
        return marks if self.heads == 1 else np.stack([marks, -marks], axis=1)


ROWS: list[dict[str, Any]] = [
    {"prompt": "q", "chosen": "yes!!", "rejected": "no", "category": "chat"},
    {"prompt": "q", "chosen": "yes", "rejected": "no!", "category": "chat"},
    {"prompt": "q", "chosen": "ab", "rejected": "c", "category": "safety"},
    {"prompt": "q", "completions": ["a!", "b", "c"], "scores": [2, 1, 1]},
    {"prompt": "q", "chosen": "same", "rejected": "same"},
    {"prompt": "q", "chosen": "lonely"},
]


def test_pairs_rankings_and_bad_rows() -> None:
    report = evaluate_reward(Shouting(), ROWS)
    assert (report.accuracy.pairs, report.accuracy.right, report.accuracy.ties) == (5, 3, 1)
    assert report.accuracy.low < report.accuracy.accuracy == 0.6 < report.accuracy.high
    assert {name: (found.right, found.pairs) for name, found in report.categories.items()} == {
        "chat": (1, 2),
        "safety": (0, 1),
    }
    assert sum(report.skipped.values()) == 2
    assert sorted(place for places in report.examples.values() for place in places) == ["row:5", "row:6"]
    assert report.to_dict()["categories"]["chat"]["pairs"] == 2
    with pytest.raises(DataError, match="no row is a pair"):
        evaluate_reward(Shouting(), ROWS[4:])
    with pytest.raises(UsageError, match="several scores"):
        evaluate_reward(Shouting(2), ROWS)
    assert evaluate_reward(SelectHead(Shouting(2), 1), ROWS).accuracy.right == 1
    with pytest.raises(UsageError, match="no head 2"):
        SelectHead(Shouting(2), 2).score(["p"], ["a"])


def test_a_chat_model_is_given_the_turns_of_a_transcript(tiny_model_folder: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: well?\n\nAssistant:"
    model = RewardModel(load_reward_model(tiny_model_folder), ChatTokenizer.from_folder(tiny_model_folder))
    seen: list[Any] = []
    score = model.score
    model.score = lambda prompts, completions: (seen.extend(prompts), score(prompts, completions))[1]  # type: ignore[method-assign]
    report = evaluate_reward(model, [{"chosen": f"{start} good", "rejected": f"{start} bad"}])
    assert report.accuracy.pairs == 1
    assert [turn["role"] for turn in seen[0]] == ["user", "assistant", "user"]


def test_pairs_that_are_too_long_are_counted(tiny_model_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    model = RewardModel(load_reward_model(tiny_model_folder), tokenizer, max_length=120)
    talk = [{"role": role, "content": "x" * 40} for role in ("user", "assistant", "user")]
    rows: list[dict[str, Any]] = [
        {"prompt": "q", "chosen": "fine", "rejected": "bad"},
        {"prompt": "q", "chosen": "long " * 40, "rejected": "bad"},
        {"prompt": talk, "chosen": "fine", "rejected": "bad"},
    ]
    report = evaluate_reward(model, rows)
    assert report.accuracy.pairs == 2
    assert report.skipped == {"longer than max_length with its last turn alone": 1}
    # Old turns leave the prompt, as in training.
    assert model.score([talk], ["fine"]) == pytest.approx(model.score([talk[2:]], ["fine"]), abs=1e-6)
    with pytest.raises(DataError, match="no pair can be scored"):
        evaluate_reward(model, rows[1:2])


@pytest.mark.parametrize(("right", "total"), [(0, 5), (3, 7), (70, 100), (9, 9)])
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    theirs = binomtest(right, total).proportion_ci(method="wilson")
    assert wilson_interval(right, total) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert np.isnan(pair_accuracy(np.zeros(0)).accuracy)


def test_a_calibrated_model_has_no_error_and_a_bold_one_has() -> None:
    generator = np.random.default_rng(0)
    d = generator.normal(0, 2, 200_000)
    # The first reply is the better one with probability s(d): better minus worse is then d or -d.
    better_first = generator.random(len(d)) < 1 / (1 + np.exp(-d))
    differences = np.where(better_first, d, -d)
    assert calibration(differences).ece < 0.005
    bold = calibration(5 * differences)
    assert bold.ece > 0.1
    assert sum(count for _, _, count in bold.bins) == len(d)
    assert calibration(differences).log_loss < bold.log_loss
    ties = calibration(np.zeros(4))
    assert (ties.ece, ties.bins) == (0.0, [(0.5, 0.5, 4)])
    assert ties.log_loss == pytest.approx(np.log(2))
    with pytest.raises(UsageError):
        calibration(d, num_bins=0)


def test_length_correlations_are_scipys() -> None:
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 9, 60).astype(float)
    scores = lengths + generator.normal(0, 4, 60).round()
    found = length_correlation(scores, lengths)
    assert found.pearson == pytest.approx(pearsonr(scores, lengths).statistic)
    assert found.spearman == pytest.approx(spearmanr(scores, lengths).statistic)
    assert found.within_pairs == pytest.approx(
        pearsonr(scores[:30] - scores[30:], lengths[:30] - lengths[30:]).statistic
    )
    assert np.isnan(length_correlation(scores, np.ones(60)).pearson)


def test_models_that_agree_do_not_differ() -> None:
    one = np.array([[3.0, 1.0, 2.0], [0.0, 2.0, 2.0]])
    assert ensemble_disagreement(np.stack([one, 10 * one + 4])) == {
        "disagreement": 0.0,
        "std": pytest.approx(0, abs=1e-12),
    }
    turned = ensemble_disagreement(np.stack([one, one, -one]))
    assert turned["disagreement"] == pytest.approx(2 / 3 * 2 / 3)  # two of three pairs of models, two of three pairs
    assert turned["std"] > 0.5
    with pytest.raises(UsageError):
        ensemble_disagreement(one[None])


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (lambda scores: [*scores[:-1], np.nan], NumericsError, r"row:3, reply 1: .*nan"),
        (lambda scores: [-np.inf, *scores[1:]], NumericsError, r"row:1, reply 0: .*inf"),
        (lambda scores: scores[1:], UsageError, r"shape \(5,\) for 6 replies"),
        (lambda scores: 1.0, UsageError, r"shape \(\) for 6 replies"),
        (lambda scores: [*scores[:3], "good", *scores[4:]], UsageError, r"row:2, reply 1: a score is 'good'"),
        (lambda scores: [*scores[:3], None, *scores[4:]], NumericsError, r"row:2, reply 1"),
        (lambda scores: "great!", UsageError, "a score is 'great!'"),
        (lambda scores: [[1.0], [1.0, 2.0], *[[1.0]] * 4], UsageError, "not a number"),
        (lambda scores: [[]] * 6, UsageError, r"shape \(6, 0\)"),
    ],
)
def test_what_a_foreign_scorer_gives_is_checked(answer: Any, kind: type[Exception], said: str) -> None:
    rows = [{"prompt": "q", "chosen": "yes!!", "rejected": "no"}] * 3

    def score(prompts: Sequence[Any], completions: Sequence[Any]) -> Any:
        return answer([float(text.count("!")) for text in completions])

    with pytest.raises(kind, match=said):
        evaluate_reward(score, rows)
    assert evaluate_reward(lambda prompts, completions: [len(text) for text in completions], rows).accuracy.right == 3


def test_bad_rows_are_found_without_scoring_all_others_one_by_one() -> None:
    calls: list[int] = []

    def score(prompts: Sequence[Any], completions: Sequence[Any]) -> list[int]:
        calls.append(len(completions))
        if any("long" in text for text in completions):
            raise DataError("too long")
        return [len(text) for text in completions]

    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"} for _ in range(2000)]
    rows[700] = {"prompt": "q", "chosen": "long long", "rejected": "bad"}
    rows[1999] = {"prompt": "q", "chosen": "good", "rejected": "long"}
    report = evaluate_reward(score, rows)
    assert (report.accuracy.pairs, report.skipped) == (1998, {"too long": 2})
    assert report.examples == {"too long": ["row:701", "row:2000"]}
    assert len(calls) < 60
    assert sum(calls) < 1.6 * 4000


def test_rankings_have_a_best_of_n_curve_and_ties_no_pair() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "q", "completions": ["a!", "b", "c!!"], "scores": [1, 0, 0]},
        {"prompt": "q", "completions": ["a", "b!", "c"], "scores": [0, 1, 1]},
        {"prompt": "q", "completions": ["a", "b!"], "scores": [1, 1]},
        {"prompt": "q", "completions": ["alone"], "scores": [1]},
    ]
    report = evaluate_reward(Shouting(), rows)
    assert (report.accuracy.pairs, report.accuracy.right, report.no_pair) == (4, 2, 1)
    assert report.skipped == {"a ranking of one reply": 1}
    # Of one: the mean grade. Of three: the loudest.
    assert report.best_of_n[1] == pytest.approx((1 / 3 + 2 / 3 + 1) / 3)
    assert report.best_of_n[3] == pytest.approx((0 + 1 + 1) / 3)
    assert report.best_possible[3] == 1.0
    with pytest.raises(DataError, match="no two replies"):
        evaluate_reward(Shouting(), rows[2:3])


def test_replies_of_a_ranking_are_scored_once_and_rows_of_another_kind_are_counted() -> None:
    seen: list[str] = []

    def score(prompts: Sequence[Any], completions: Sequence[Any]) -> list[int]:
        seen.extend(completions)
        return [len(text) for text in completions]

    ranking = {"prompt": "q", "completions": ["a", "bb", "ccc", "dddd"], "scores": [0, 1, 2, 3]}
    report = evaluate_reward(score, [ranking, {"prompt": "q", "completion": "a"}, {"x": 1}])
    assert seen == ["a", "bb", "ccc", "dddd"]
    assert (report.accuracy.pairs, report.accuracy.right, sum(report.skipped.values())) == (6, 6, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_no_accuracy(bad: float) -> None:
    for ask in (pair_accuracy, calibration):
        with pytest.raises(UsageError, match=r"place \(1,\): a score is"):
            ask(np.array([1.0, bad]))
    with pytest.raises(UsageError, match=r"place \(1, 0, 1\): a score is"):
        ensemble_disagreement(np.array([[[1.0, 2.0], [0.0, 1.0]], [[1.0, bad], [0.0, 1.0]]]))


def test_what_a_pair_says_of_its_sides_decides() -> None:
    rows = [{"prompt": "q", "chosen": "long reply", "rejected": "a", "p": p} for p in (1.0, 0.0, 0.5, 0.2)]

    def length(prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        return np.array([float(len(str(reply))) for reply in completions])

    report = evaluate_reward(length, rows)
    assert (report.accuracy.pairs, report.accuracy.right, report.no_pair) == (3, 1, 1)


def test_chances_are_calibrated_against_chances() -> None:
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad", "p": 0.6}] * 50

    def odds(prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        return np.array([np.log(1.5) if "good" in str(reply) else 0.0 for reply in completions])

    found = evaluate_reward(odds, rows).calibration
    assert found.ece == pytest.approx(0.0, abs=1e-12)
    assert found.log_loss == pytest.approx(-(0.6 * np.log(0.6) + 0.4 * np.log(0.4)))
