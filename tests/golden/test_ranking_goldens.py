"""Numbers of RRHF and SLiC-HF computed by hand and, in plain Python, by another program (spec golden.json)."""

from __future__ import annotations

import pytest
from ranked_replies import pair, reply, terms, value

from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.slic import SLiCObjective

SUMS = (-3.6935043680856348, -4.069547117302548, -9.205689373370802, -9.324905774006773)
REWARDS = (0.1, 2.0, -1.0, 0.7)
RANKED = [[reply(total, n + 2, score) for n, (total, score) in enumerate(zip(SUMS, REWARDS, strict=True))]]
BEST_AND_WORST = [pair(RANKED[0][1], RANKED[0][2])]


def close(number: float) -> object:
    return pytest.approx(number, abs=1e-10)


def test_rrhf_as_in_the_paper() -> None:
    found = terms(RRHFObjective(), RANKED)
    assert found == {"rank": close(0.018228970758537244), "sft": close(4.069547117302548)}
    assert value(RRHFObjective(), RANKED) == close(4.087776088061085)


def test_rrhf_as_the_reference_computes_it() -> None:
    objective = RRHFObjective(mode="reference", padded_width=6)
    assert terms(objective, RANKED) == {"rank": close(1.0211100926290033), "sft": close(4.069547117302548 / 6)}


def test_the_padded_width_is_the_prompt_with_its_longest_reply() -> None:
    found = terms(RRHFObjective(mode="reference"), RANKED)
    assert found["rank"] == close(1.0211100926290033 * 6 / (3 + 5))


@pytest.mark.parametrize(("chosen", "rejected", "loss"), [(-10.0, -9.0, 2.0), (-8.0, -10.0, 0.0)])
def test_slic_worked_pairs(chosen: float, rejected: float, loss: float) -> None:
    assert value(SLiCObjective(lam=0.0), [pair(reply(chosen), reply(rejected))]) == close(loss)


def test_slic_of_the_best_and_the_worst_reply() -> None:
    found = terms(SLiCObjective(), BEST_AND_WORST)
    assert found == {"calibration": 0.0, "ce": close(4.069547117302548)}
    assert value(SLiCObjective(), BEST_AND_WORST) == close(2.034773558651274)


def test_slic_list_rank_is_a_sum_over_six_pairs() -> None:
    assert terms(SLiCObjective(kind="list", delta=0.1), RANKED)["calibration"] == close(6.626660555774021)


def test_slic_expected_reward() -> None:
    # float32 scores: 0.1 and 0.7 are not exact
    assert terms(SLiCObjective(kind="reward"), RANKED)["calibration"] == pytest.approx(-0.8686238643623886, abs=1e-7)
