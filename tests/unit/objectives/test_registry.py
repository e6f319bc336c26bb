from __future__ import annotations

import dataclasses

import pytest

from alignite.errors import ConfigError, UsageError
from alignite.objectives.registry import METHODS, make_objective
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


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="no objective 'ppo'"):
        make_objective("ppo")
