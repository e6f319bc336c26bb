from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from alignite.config import TrainingConfig
from alignite.errors import ConfigError
from alignite.training.best import Best


def best(**options: Any) -> Best:
    return Best.of(TrainingConfig(**({"metric_for_best_model": "eval_loss"} | options)))


def feed(tracked: Best, values: list[float], name: str = "eval_loss") -> list[bool]:
    return [tracked.update(10 * (index + 1), {name: value}) for index, value in enumerate(values)]


def test_a_loss_is_best_when_small_and_anything_else_when_large() -> None:
    tracked = best()
    assert feed(tracked, [3.0, 2.0, 2.5, 2.0, 1.9]) == [True, True, False, False, True]
    assert (tracked.value, tracked.step) == (1.9, 50)
    tracked = best(metric_for_best_model="eval_mean_token_accuracy")
    assert feed(tracked, [0.3, 0.2, 0.4], "eval_mean_token_accuracy") == [True, False, True]
    tracked = best(greater_is_better=True)
    assert feed(tracked, [3.0, 2.0, 4.0]) == [True, False, True]


def test_a_value_that_is_not_a_number_never_is_the_best() -> None:
    tracked = best(early_stopping_patience=2, eval_steps=1)
    assert feed(tracked, [math.nan, 2.0, math.nan, math.nan]) == [False, True, False, False]
    assert tracked.value == 2.0
    assert tracked.exhausted


def test_patience_begins_anew_only_when_the_gain_passes_the_threshold() -> None:
    tracked = best(early_stopping_patience=2, early_stopping_threshold=0.5, eval_steps=1)
    assert feed(tracked, [3.0, 2.9, 2.3]) == [True, True, True]
    assert tracked.waited == 0
    assert not tracked.exhausted
    tracked.update(40, {"eval_loss": 2.2})
    tracked.update(50, {"eval_loss": 2.1})
    assert (tracked.step, tracked.exhausted) == (50, True)


def test_without_a_metric_nothing_is_watched() -> None:
    tracked = Best.of(TrainingConfig())
    assert feed(tracked, [1.0, 2.0]) == [False, False]
    assert not tracked.exhausted


def test_the_state_goes_on_and_one_of_another_metric_is_left() -> None:
    tracked = best()
    feed(tracked, [3.0, 4.0])
    other = best()
    other.load_state_dict(tracked.state_dict())
    assert other == tracked
    third = best(metric_for_best_model="eval_entropy")
    third.load_state_dict(tracked.state_dict())
    assert third.value is None


def test_a_metric_that_the_evaluation_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"eval_accuracy.*\n.*eval_entropy, eval_loss"):
        best(metric_for_best_model="eval_accuracy").update(1, {"eval_loss": 1.0, "eval_entropy": 2.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric_for_best_model": "accuracy"}, "eval_accuracy"),
        ({"early_stopping_patience": 1}, "eval_steps"),
        ({"early_stopping_threshold": -1.0}, "early_stopping_threshold"),
        ({"trackers": ["tensorbord"]}, "tensorboard, wandb, trackio"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**options).validate()


def test_an_option_that_needs_a_metric_takes_the_loss(tmp_path: Path) -> None:
    config = TrainingConfig(load_best_model_at_end=True)
    config.validate()
    assert config.metric_for_best_model == "eval_loss"
