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
from alignite.errors import DataError, UsageError
from alignite.evaluation.reward import (
    SelectHead,
    calibration,
    ensemble_disagreement,
    evaluate_reward,
    length_correlation,
    pair_accuracy,
    wilson_interval,
)
from alignite.models.reward import RewardModel
from alignite.models.reward_files import load_reward_model


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
