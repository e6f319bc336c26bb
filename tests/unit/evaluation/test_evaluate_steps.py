"""Reports on process reward models: by hand and by scikit-learn's definitions, and what is no probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from alignite.errors import DataError, NumericsError, UsageError
from alignite.evaluation.steps import evaluate_steps

ROWS: list[dict[str, Any]] = [
    {"prompt": "a", "completions": ["1", "2", "3"], "labels": [1, -1, -1], "category": "hard"},
    {"prompt": "b", "completions": ["1", "2"], "labels": [1, -1], "category": "hard"},
    {"prompt": "c", "completions": ["1", "2"], "labels": [True, True]},
    {"prompt": "d", "completions": ["1", "2"], "labels": [1, 0]},
]
SAID: dict[str, list[float]] = {"a": [0.9, 0.2, 0.7], "b": [0.4, 0.1], "c": [0.8, 0.5], "d": [0.6, 0.3]}


def model(prompts: Sequence[Any], solutions: Sequence[Sequence[str]]) -> list[Any]:
    return [SAID[prompt][: len(solution)] for prompt, solution in zip(prompts, solutions, strict=True)]


def test_single_steps_and_the_first_wrong_one() -> None:
    report = evaluate_steps(model, [*ROWS, {"prompt": "q", "completions": ["x"], "labels": [2]}, {"x": 1}])
    # a: right, found, missed. b: false alarm, found. c: right, right (0.5 says right). d: right, false alarm.
    assert (report.accuracy.steps, report.accuracy.right) == (9, 6)
    assert report.accuracy.low < report.accuracy.accuracy == 6 / 9 < report.accuracy.high
    assert (report.precision, report.recall) == (2 / 4, 2 / 3)
    assert report.f1 == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))
    chances = [0.9, 0.8, 0.3, 0.4, 0.9, 0.8, 0.5, 0.6, 0.3]
    assert report.log_loss == pytest.approx(-np.log(chances).mean())
    first = report.first_error
    assert (first.wrong, first.accuracy_wrong, first.right, first.accuracy_right) == (2, 0.5, 2, 0.5)
    assert first.f1 == 0.5
    assert {name: (one.right, one.steps) for name, one in report.categories.items()} == {"hard": (3, 5)}
    assert sum(report.skipped.values()) == 2
    assert sorted(place for places in report.examples.values() for place in places) == ["row:5", "row:6"]


def test_neutral_steps_and_the_threshold() -> None:
    assert evaluate_steps(model, ROWS, neutral="bad").accuracy.right == 7
    ignored = evaluate_steps(model, ROWS, neutral="ignore")
    assert (ignored.accuracy.steps, ignored.accuracy.right, ignored.first_error.right) == (8, 6, 2)
    assert evaluate_steps(model, ROWS, threshold=0.75).first_error.accuracy_right == 0.0
    with pytest.raises(UsageError, match="neutral is"):
        evaluate_steps(model, ROWS, neutral="perhaps")
    with pytest.raises(DataError, match="no step is rated"):
        evaluate_steps(model, [{"prompt": "d", "completions": ["1"], "labels": [0]}], neutral="ignore")


def test_prm800k_rows_and_rows_that_the_model_refuses() -> None:
    step = {"human_completion": None, "chosen_completion": 0}
    steps = [step | {"completions": [{"text": "x", "rating": rating}]} for rating in (1, -1)]
    row = {"question": {"problem": "a"}, "label": {"steps": steps, "finish_reason": "solution"}}
    assert evaluate_steps(model, [row]).accuracy.right == 2

    def strict(prompts: Sequence[Any], solutions: Sequence[Sequence[str]]) -> list[Any]:
        if "b" in prompts:
            raise DataError("too long", where="solution 0")
        return model(prompts, solutions)

    report = evaluate_steps(strict, ROWS)
    assert (report.accuracy.steps, report.examples) == (7, {"too long": ["row:2"]})
    with pytest.raises(DataError, match="no row is a solution"):
        evaluate_steps(strict, ROWS[1:2])


def prm800k(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"question": {"problem": "a"}, "label": {"steps": list(steps), "finish_reason": "solution"}}


def rated(*ratings: int | None, chosen: int | None, human: Any = None, name: str = "") -> dict[str, Any]:
    completions = [{"text": f"{name}{n}", "rating": rating} for n, rating in enumerate(ratings)]
    return {"completions": completions, "chosen_completion": chosen, "human_completion": human}


@pytest.mark.parametrize("last", [1, None])
def test_alternatives_are_scored_behind_their_own_prefix(last: int | None) -> None:
    row = prm800k(
        rated(1, -1, chosen=0, name="a"), rated(-1, 0, 1, chosen=2, name="b"), rated(-1, 1, chosen=last, name="c")
    )
    asked: list[list[str]] = []

    def right(prompts: Sequence[Any], solutions: Sequence[Sequence[str]]) -> list[Any]:
        asked.extend(map(list, solutions))
        return [[0.9 if step in ("a0", "b2", "c1") else 0.2 for step in steps] for steps in solutions]

    report = evaluate_steps(right, [row])
    # 2 x 3 x 2 completions are 7 rated steps, as in training; b1 is neutral and said to be wrong.
    assert (report.accuracy.steps, report.accuracy.right, report.alternatives) == (7, 6, 4)
    assert sorted(asked) == [["a0", "b0"], ["a0", "b1"], ["a0", "b2", "c0"], ["a0", "b2", "c1"], ["a1"]]
    assert (report.first_error.right, report.first_error.wrong, report.first_error.accuracy_right) == (1, 0, 1.0)


def test_a_step_that_nobody_rated_leads_on_and_does_not_count() -> None:
    row = prm800k(rated(-1, chosen=None, human="h", name="a"), rated(1, -1, chosen=1, name="b"), rated(1, chosen=0))
    asked: list[list[str]] = []

    def low(prompts: Sequence[Any], solutions: Sequence[Sequence[str]]) -> list[Any]:
        asked.extend(map(list, solutions))
        return [[0.1] * len(steps) for steps in solutions]

    report = evaluate_steps(low, [row])
    assert sorted(asked) == [["a0"], ["h", "b0"], ["h", "b1"]]  # behind the wrong b1 nothing is read
    assert (report.accuracy.steps, report.accuracy.right) == (3, 2)
    assert report.first_error.accuracy_wrong == 1.0  # b1: the human's step is no error
    with pytest.raises(DataError, match="none of the completions"):
        evaluate_steps(low, [prm800k(rated(1, chosen=3))])


def test_shares_of_nothing_are_unknown() -> None:
    report = evaluate_steps(lambda _, solutions: [[0.9] * len(steps) for steps in solutions], [ROWS[2]])
    assert report.accuracy.accuracy == 1.0
    first = report.first_error
    assert np.isnan([report.precision, report.recall, report.f1, first.accuracy_wrong, first.f1]).all()


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ([[0.5] * 3, [0.5, np.nan]], NumericsError, "row:2: the probability"),
        ([[0.5] * 3, [0.5]], UsageError, r"row:2: .* shape \(1,\) for 2 steps"),
        ([[0.5] * 3], UsageError, "scores 1 solutions, not 2"),
    ],
)
def test_what_is_no_probability_a_step(said: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        evaluate_steps(lambda prompts, solutions: said, ROWS[:2])
