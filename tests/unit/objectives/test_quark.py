from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ranked_replies import Reply, batch_of, columns_of, update, value

from alignite.errors import ConfigError, DataError, UsageError
from alignite.objectives.quark import QuarkObjective, quantiles, quark_rows
from alignite.types import IGNORE, Objective, RowMaker, SftBatch


def test_it_is_an_objective() -> None:
    assert isinstance(QuarkObjective(), Objective)
    plain = QuarkObjective(kl_coef=0.0).columns
    assert QuarkObjective(kl="k3").columns - plain == {"reference.logp"}
    assert QuarkObjective().columns - plain == {"policy.kl"}
    assert QuarkObjective(kl_coef=0.0, entropy_coef=0.1).columns - plain == {"policy.graphed_entropy"}
    assert QuarkObjective().state_dict() == {}


def test_the_remainder_goes_to_the_best_quantiles_one_each_and_ties_stay_in_order() -> None:
    rewards = [0.5, 0.9, 0.5, 0.1, 0.5, 0.7, 0.2, 0.5]
    assert quantiles(rewards, 3).tolist() == [0, 0, 1, 2, 1, 0, 2, 1]
    assert quantiles([1.0] * 5, 5).tolist() == [0, 1, 2, 3, 4]
    assert quantiles([3.0, 1.0], 1).tolist() == [0, 0]


@pytest.mark.parametrize(("rewards", "number"), [([1.0], 2), ([1.0], 0), ([1.0, math.nan], 1)])
def test_quantiles_that_there_cannot_be(rewards: list[float], number: int) -> None:
    with pytest.raises(UsageError) as error:
        quantiles(rewards, number)
    assert ("--num_quantiles" in str(error.value)) == (len(rewards) == 1)


def test_rows_name_the_quantile_over_the_whole_pool() -> None:
    rows = [
        {"prompt": "q", "completions": ["bad", "best"], "scores": [0.0, 9.0]},
        {"prompt": [{"role": "user", "content": "r"}], "completions": ["good", "poor"], "scores": [5.0, 2.0]},
    ]
    assert quark_rows(rows, 2, "[{quantile}] ") == [
        {"prompt": "[1] q", "completion": "bad", "label": True},
        {"prompt": "[0] q", "completion": "best", "label": True},
        {"prompt": [{"role": "user", "content": "[0] r"}], "completion": "good", "label": True},
        {"prompt": [{"role": "user", "content": "[1] r"}], "completion": "poor", "label": True},
    ]
    assert rows[1]["prompt"] == [{"role": "user", "content": "r"}]


def test_it_makes_the_same_rows_of_what_has_a_place_for_the_marker() -> None:
    rows = [
        {"prompt": [{"role": "system", "content": "s"}], "completions": ["x"], "scores": [99.0]},
        *({"prompt": f"q{n}", "completions": ["a", "b"], "scores": [n, -n]} for n in range(4)),
    ]
    bad: list[DataError] = []
    objective = QuarkObjective(num_quantiles=3, marker="{quantile}: ")
    assert isinstance(objective, RowMaker)
    assert objective.takes == "ranked"
    assert list(objective.rows(rows, bad.append)) == quark_rows(rows[1:], 3, "{quantile}: ")
    assert len(bad) == 1
    assert QuarkObjective(num_quantiles=0).takes == ""


def test_the_loss_by_hand() -> None:
    records = [[Reply((-1.0, -2.0), reference=(-1.5, -2.0))]]
    # columns_of's divergence is the square of the difference, its entropy 3 + a quarter of the log-probability
    objective = QuarkObjective(kl_coef=0.1, entropy_coef=0.2)
    loss, gradient = update(objective, [records])
    assert loss == pytest.approx((3 + 0.1 * 0.25 - 0.2 * (2.75 + 2.5)) / 2)
    assert gradient == pytest.approx([(-1 + 0.1 * 1.0 - 0.2 / 4) / 2, (-1 - 0.2 / 4) / 2])
    assert objective.loss(columns_of(records), batch_of(records)).metrics["kl"] == (pytest.approx(0.25), 2.0)


def test_the_loss_with_an_estimate_by_hand() -> None:
    records = [[Reply((-1.0, -2.0), reference=(-1.5, -2.0))]]
    k3 = math.exp(-0.5) - 1 + 0.5
    objective = QuarkObjective(kl_coef=0.1, kl="k3")
    loss, gradient = update(objective, [records])
    assert loss == pytest.approx((3 + 0.1 * k3) / 2)
    assert gradient == pytest.approx([(-1 + 0.1 * (1 - math.exp(-0.5))) / 2, -0.5])
    metrics = objective.loss(columns_of(records), batch_of(records)).metrics
    assert metrics["kl_k3"] == (pytest.approx(k3), 2.0)


def test_without_kl_it_is_supervised_fine_tuning_of_any_batch() -> None:
    assert value(QuarkObjective(kl_coef=0.0), [[Reply((-1.0, -2.0))], [Reply((-3.0,))]]) == pytest.approx(2.0)
    ids = torch.tensor([1, 2, 3])
    weights = torch.tensor([0.0, 2.0, 1.0])
    batch = SftBatch(ids, torch.tensor([IGNORE, 2, 3]), ids, np.array([[0, 3, -1]]), 1, weights)
    columns = {"policy.logp": torch.tensor([-1.0, -4.0]), "policy.entropy": torch.zeros(2)}
    term = QuarkObjective(kl_coef=0.0).loss(columns, batch).terms["nll"]
    assert (float(term.sum), term.count) == (6.0, 3.0)
    assert QuarkObjective(kl_coef=0.0).counts(batch) == {"nll": 3.0}


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError):
        QuarkObjective(kl_coef=-0.1)
    for options in ({"entropy_coef": -0.1}, {"kl": "full"}, {"num_quantiles": -1}):
        with pytest.raises(ConfigError):
            QuarkObjective(**options)  # type: ignore[arg-type]
    for marker in ("none", "{quantile} {other}", "{quantile"):
        with pytest.raises(ConfigError, match="marker"):
            QuarkObjective(marker=marker)
