"""Several reward models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from alignite.errors import NumericsError, UsageError
from alignite.scoring.combined_reward import CombinedReward, combine_scores

SCORES = np.array([[0.1, 0.15, 0.9, 0.2], [5.0, 6.0, -1.0, 7.0]])


class Length:
    """Scores a reply by its length."""

    def __init__(self, *factors: float) -> None:
        self.factors = factors

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        scores = np.array([[factor * len(text) for factor in self.factors] for text in completions])
        return scores[:, 0] if len(self.factors) == 1 else scores


def test_llama2_switches_at_its_threshold_exactly() -> None:
    safety = np.array([False, False, False, True])
    assert combine_scores(SCORES, "threshold", is_safety=safety).tolist() == [0.1, 6.0, -1.0, 0.2]
    just_below = np.nextafter(0.15, 0)
    assert combine_scores(np.array([[just_below], [3.0]]), "threshold").tolist() == [just_below]


def test_sums_products_and_the_least() -> None:
    assert combine_scores(SCORES, "mean").tolist() == SCORES.mean(0).tolist()
    assert combine_scores(SCORES, "min").tolist() == [0.1, 0.15, -1.0, 0.2]
    assert (combine_scores(SCORES, "min") <= combine_scores(SCORES, "mean")).all()
    assert combine_scores(SCORES, "weighted", weights=[2.0, 0.5]).tolist() == pytest.approx([2.7, 3.3, 1.3, 3.9])
    assert combine_scores(np.abs(SCORES), "product").tolist() == pytest.approx([0.5, 0.9, 0.9, 1.4])


def test_the_second_model_decides_what_the_first_leaves_open() -> None:
    scores = np.array([[1.0, 1.0, 2.0, 1.4], [3.0, 1.0, 0.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    assert combine_scores(scores, "lexicographic").tolist() == [1, 0, 3, 2]
    assert combine_scores(scores, "lexicographic", tolerance=1.0).tolist() == [1, 0, 3, 2]
    assert combine_scores(scores[:, :2] * [[1], [0], [1]], "lexicographic").tolist() == [0, 0]
    wide = np.array([[1.0, 1.4], [5.0, 2.0]])
    assert combine_scores(wide, "lexicographic").tolist() == [0, 1]
    assert combine_scores(wide, "lexicographic", tolerance=1.0).tolist() == [1, 0]


def test_models_are_asked_by_text() -> None:
    combined = CombinedReward([Length(1.0), Length(2.0, 3.0)], "weighted", weights=[1.0, 10.0, 100.0])
    assert combined.scores(["p", "p"], ["a", "bb"]).tolist() == [[1, 2], [2, 4], [3, 6]]
    assert combined.score(["p", "p"], ["a", "bb"]).tolist() == [321, 642]
    switch = CombinedReward([Length(0.1), Length(7.0)], "threshold", is_safety=lambda prompt: "bomb" in prompt)
    assert switch.score(["cake", "cake", "a bomb"], ["a", "bb", "bb"]).tolist() == [0.1, 14.0, 0.2]


def test_what_cannot_be_combined() -> None:
    cases: list[tuple[NDArray[np.float64], str, dict[str, Any]]] = [
        (SCORES, "sum", {}),
        (SCORES, "weighted", {"weights": [1.0]}),
        (SCORES, "product", {}),
        (SCORES[:1], "threshold", {}),
        (SCORES, "threshold", {"is_safety": np.array([True])}),
        (SCORES, "lexicographic", {"tolerance": -1.0}),
        (SCORES[0], "mean", {}),
        (np.array([[np.nan]]), "mean", {}),
    ]
    for scores, how, options in cases:
        with pytest.raises(UsageError):
            combine_scores(scores, how, **options)
    with pytest.raises(UsageError, match="no model"):
        CombinedReward([])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"how": "weighted", "weights": [1.0, np.nan]}, "weights are"),
        ({"how": "weighted", "weights": [np.inf, 1.0]}, "weights are"),
        ({"how": "threshold", "threshold": np.nan}, "threshold is nan"),
        ({"how": "threshold", "threshold": -np.inf}, "threshold is -inf"),
        ({"how": "lexicographic", "tolerance": np.nan}, "tolerance is nan"),
        ({"how": "lexicographic", "tolerance": np.inf}, "tolerance is inf"),
        ({"how": "lexicographic", "tolerance": -0.1}, "tolerance is -0.1"),
    ],
)
def test_options_that_are_not_finite(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        combine_scores(SCORES, **options)
    with pytest.raises(UsageError, match=said):  # before anything is scored
        CombinedReward([Length(1.0), Length(2.0)], **options)


def test_scores_that_cannot_be_combined() -> None:
    wrong = SCORES.copy()
    wrong[1, 2] = np.nan
    for how in ("mean", "min", "threshold", "lexicographic"):
        with pytest.raises(UsageError, match="model 1 for reply 2 is nan"):
            combine_scores(wrong, how)
    with pytest.raises(UsageError, match="not numbers"):
        combine_scores([["a", "b"]])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="something else than truths"):
        combine_scores(SCORES, "threshold", is_safety=[0.0, np.nan, 1.0, 0.0])  # type: ignore[arg-type]
    ints = combine_scores(SCORES, "threshold", is_safety=[0, 0, 0, 1])  # type: ignore[arg-type]
    assert ints.tolist() == [0.1, 6.0, -1.0, 0.2]
    with pytest.raises(NumericsError, match="pair 1: the score of a reply is"):
        CombinedReward([Length(1.0), lambda prompts, completions: [1.0, np.nan]]).score(["p", "p"], ["a", "bb"])
    with pytest.raises(UsageError, match=r"shape \(1,\) for 2 replies"):
        CombinedReward([lambda prompts, completions: [1.0]]).score(["p", "p"], ["a", "bb"])
