from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from ranked_replies import Reply, batch_of, columns_of, pair, reply, terms, update, value

from alignite.errors import ConfigError
from alignite.objectives.rrhf import RRHFObjective
from alignite.types import Objective


def test_it_is_an_objective() -> None:
    objective = RRHFObjective()
    assert isinstance(objective, Objective)
    assert objective.columns == {"policy.logp", "policy.entropy"}
    assert objective.state_dict() == {}
    objective.load_state_dict({})


def test_only_a_violated_pair_gives_gradient_one_over_its_length_a_token() -> None:
    worse, middle, better = reply(-2.0, 2, 0.0), reply(-9.0, 3, 1.0), reply(-4.0, 4, 2.0)
    # Means: -1, -3, -1. Only (worse, middle) stands the wrong way round; the best's tokens are imitated.
    _, gradient = update(RRHFObjective(), [[[worse, middle, better]]])
    assert gradient == pytest.approx([1 / 2] * 2 + [-1 / 3] * 3 + [-1.0] * 4)


def test_one_reply_is_supervised_fine_tuning() -> None:
    found = terms(RRHFObjective(), [[reply(-3.0, 3, 0.2)]])
    assert found == {"rank": 0.0, "sft": 3.0}


def test_prompts_are_averaged_with_those_that_have_no_pair() -> None:
    violated = [reply(-4.0, 1, 1.0), reply(-1.0, 1, 0.0)]
    tied = [reply(-2.0, 1, 1.0), reply(-6.0, 1, 1.0)]
    # Ties give no pair and share the best place.
    assert value(RRHFObjective(), [violated, tied]) == pytest.approx((3 + 4 + 0 + 4) / 2)


@pytest.mark.parametrize(("power", "loss"), [(0.0, 5.0), (1.0, 2.5), (2.0, 1.25)])
def test_length_penalty(power: float, loss: float) -> None:
    records = [[reply(-7.0, 2, 1.0), reply(-2.0, 2, 0.0)]]
    assert terms(RRHFObjective(length_penalty=power), records)["rank"] == pytest.approx(loss)


def test_weight_and_mean() -> None:
    records = [[reply(-6.0, 3, 1.0), reply(-1.0, 1, 0.0)]]
    assert value(RRHFObjective(rrhf_weight=100.0), records) == pytest.approx(100 * 1.0 + 6.0)
    assert value(RRHFObjective(sft="mean"), records) == pytest.approx(1.0 + 2.0)


def test_metrics_are_of_the_scores_that_rank() -> None:
    records = [[reply(-6.0, 3, 1.0), reply(-1.0, 1, 0.0)], pair(reply(-2.0, 2), reply(-8.0, 2))]
    metrics = RRHFObjective().loss(columns_of(records), batch_of(records)).metrics
    assert metrics["rewards/accuracies"] == (1.0, 2.0)
    assert metrics["rewards/margins"] == (pytest.approx(-1.0 + 3.0), 2.0)
    assert metrics["logps/chosen"] == (pytest.approx(-8.0), 2.0)
    assert metrics["rewards/rejected"] == (pytest.approx(-5.0), 2.0)
    assert metrics["entropy"] == (8.0, 8.0)


def test_unscored_replies_are_no_best_and_in_no_pair() -> None:
    records = [[reply(-1.0, 1, math.nan), reply(-5.0, 1, 0.0), reply(-3.0, 1, -2.0)]]
    assert terms(RRHFObjective(), records) == {"rank": pytest.approx(2.0), "sft": pytest.approx(5.0)}


def test_the_reference_favours_short_replies() -> None:
    # Means -1 and -2 stand in order, sums -4 and -2 do not.
    records = [[reply(-4.0, 4, 1.0), reply(-2.0, 1, 0.0)]]
    assert terms(RRHFObjective(), records)["rank"] == 0.0
    assert terms(RRHFObjective(mode="reference", padded_width=8), records)["rank"] == pytest.approx(2 / 8)


@pytest.mark.parametrize(("weight", "mean"), [(1.0, 1.0), (0.5, 1.0), (0.0, 0.0)])
def test_a_token_weight_counts_in_sum_and_length(weight: float, mean: float) -> None:
    records = [[Reply((-1.0, -3.0), 1.0), Reply((-0.25,), 0.0)]]
    weights = torch.tensor([1.0, 1, 1, weight, 0, 1])
    batch = dataclasses.replace(batch_of(records), weights=weights)
    found = RRHFObjective().loss(columns_of(records), batch).terms
    assert float(found["rank"].sum.detach()) == pytest.approx(max(0.0, mean - 0.25))
    assert float(found["sft"].sum.detach()) == pytest.approx(weight)


@pytest.mark.parametrize(
    "options",
    [
        {"length_penalty": -1.0},
        {"rrhf_weight": math.inf},
        {"sft": "max"},
        {"mode": "bug"},
        {"padded_width": 8},
        {"mode": "reference", "padded_width": 0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RRHFObjective(**options)
