from __future__ import annotations

import dataclasses
import math

import pytest

from alignite.config.preference import METHOD_CONFIGS
from alignite.errors import ConfigError, UsageError
from alignite.objectives.registry import METHODS, make_objective
from alignite.objectives.reward import RewardObjective
from alignite.types import Objective

KINDS = {"preference", "ranking", "unpaired", "conversation", "text", "steps"}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_makes_an_objective_of_plain_options(name: str) -> None:
    objective = make_objective(name)
    assert isinstance(objective, Objective)
    assert dataclasses.is_dataclass(objective)
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(objective))
    assert objective.columns
    assert METHODS[name].kinds
    assert set(METHODS[name].kinds) <= KINDS


def test_options_reach_the_objective() -> None:
    assert make_objective("slic", delta=2.0) == make_objective("slic", delta=2.0) != make_objective("slic")
    with pytest.raises(ConfigError):
        make_objective("slic", delta=-1.0)


FLOATS = [
    (name, field.name)
    for name, method in METHODS.items()
    for field in dataclasses.fields(method.objective)  # type: ignore[arg-type]
    if isinstance(field.default, float)
]


@pytest.mark.parametrize(("name", "option"), FLOATS)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_every_objective_and_its_config(
    name: str, option: str, number: float
) -> None:
    with pytest.raises(ConfigError, match=option):
        make_objective(name, **{option: number})
    with pytest.raises(ConfigError, match=option):
        METHOD_CONFIGS[name].from_dict({option: number}).validate()


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_weights_of_losses_are_at_least_0_and_finite(weight: float) -> None:
    with pytest.raises(ConfigError, match="loss_weights"):
        make_objective("dpo", loss_type=("sigmoid", "sft"), loss_weights=(1.0, weight))


@pytest.mark.parametrize("option", ["center_rewards_coefficient", "lm_coefficient", "label_smoothing"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_so_does_the_reward_objective(option: str, number: float) -> None:
    with pytest.raises(ConfigError, match=option):
        RewardObjective(**{option: number})  # type: ignore[arg-type]


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="no objective 'ppo'"):
        make_objective("ppo")
