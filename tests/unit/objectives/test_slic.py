from __future__ import annotations

import math
from typing import Any

import pytest
from ranked_replies import Reply, pair, reply, terms, update, value

from alignite.errors import ConfigError, UsageError
from alignite.objectives.slic import SLiCObjective, tournament
from alignite.types import Objective, ReplyRole


def test_it_is_an_objective_and_needs_a_reference_for_the_kl_alone() -> None:
    assert isinstance(SLiCObjective(), Objective)
    assert "reference.logp" not in SLiCObjective().columns
    assert "reference.logp" in SLiCObjective(reg="k3").columns
    assert SLiCObjective(reg="kl").columns - SLiCObjective().columns == {"policy.forward_kl"}
    assert SLiCObjective().state_dict() == {}


def test_satisfied_pairs_give_gradient_to_the_regulariser_alone() -> None:
    records = [pair(reply(-2.0, 2), reply(-9.0, 3)), pair(reply(-2.0, 1), reply(-2.5, 1))]
    _, gradient = update(SLiCObjective(lam=0.5), [records])
    first = [-0.25] * 2 + [0.0] * 3
    assert gradient == pytest.approx([*first, -0.5 - 0.25, 0.5])


def test_a_ranking_is_the_mean_over_its_pairs_then_over_prompts() -> None:
    ranking = [reply(-1.0, 1, 0.0), reply(-2.0, 1, 1.0), reply(-3.0, 1, 2.0)]
    one = pair(reply(-4.0), reply(-1.0))
    expected = ((2 + 2 + 3) / 3 + 4) / 2
    assert value(SLiCObjective(lam=0.0), [ranking, one]) == pytest.approx(expected)


def test_margin_scales_with_the_score_gap_and_a_pair_without_margin_is_rank() -> None:
    ranking = [reply(-1.0, 1, 0.5), reply(-2.0, 1, 3.0)]
    assert terms(SLiCObjective(kind="margin", delta=2.0), [ranking])["calibration"] == pytest.approx(2 * 2.5 + 1)
    one = [pair(reply(-2.0), reply(-1.0))]
    assert terms(SLiCObjective(kind="margin"), one)["calibration"] == terms(SLiCObjective(), one)["calibration"] == 2
    given = [(Reply((-2.0,), 3.0, ReplyRole.CHOSEN), one[0][1])]
    assert terms(SLiCObjective(kind="margin"), given)["calibration"] == pytest.approx(3 + 1)


def test_list_margin_counts_places_and_equal_scores_share_one() -> None:
    ranking = [reply(-1.0, 1, 5.0), reply(-1.0, 1, 5.0), reply(-1.0, 1, 2.0), reply(-1.0, 1, 1.0)]
    # Two at the top, each 1 above the third and 2 above the last, which is 1 below the third.
    assert terms(SLiCObjective(kind="list"), [ranking])["calibration"] == pytest.approx(2 * (1 + 2) + 1)
    # A pair's sides are one place apart, whatever its margin.
    one = [(Reply((-2.0,), 0.0, ReplyRole.CHOSEN), Reply((-2.0,), role=ReplyRole.REJECTED))]
    assert terms(SLiCObjective(kind="list"), one)["calibration"] == pytest.approx(1.0)


def test_expected_reward_by_hand_and_without_unscored_replies() -> None:
    likely, rare = math.log(0.3), math.log(0.1)
    ranking = [reply(likely, 1, 1.0), reply(rare, 1, 5.0), reply(0.0, 1, math.nan)]
    found = terms(SLiCObjective(kind="reward"), [ranking])["calibration"]
    assert found == pytest.approx(-(0.75 * 1 + 0.25 * 5))
    _, gradient = update(SLiCObjective(kind="reward", lam=0.0), [[ranking]])
    assert gradient == pytest.approx([-0.75 * (1 - 2), -0.25 * (5 - 2), 0.0])


def test_without_pairs_all_kinds_leave_the_regulariser() -> None:
    tied = [[reply(-1.0, 1, 1.0), reply(-3.0, 1, 1.0)]]
    for kind in ("rank", "margin", "list", "reward"):
        assert value(SLiCObjective(kind=kind), tied) == pytest.approx(0.5 * 2.0)


def test_kl_is_summed_over_the_best_replys_tokens() -> None:
    records = [pair(Reply((-1.0, -2.0), reference=(-1.5, -2.5)), reply(-90.0))]
    # columns_of's divergence is twice the square of the difference
    loss, gradient = update(SLiCObjective(reg="kl", lam=0.5), [records])
    assert loss == pytest.approx(0.5 * 2 * (0.25 + 0.25))
    assert gradient == pytest.approx([0.5 * 4 * 0.5, 0.5 * 4 * 0.5, 0.0])


def test_k3_is_zero_at_the_reference_and_pulls_back_to_it() -> None:
    objective = SLiCObjective(reg="k3", lam=1.0)
    same = [pair(Reply((-1.0, -2.0), reference=(-1.0, -2.0)), reply(-90.0))]
    assert update(objective, [same]) == (0.0, [0.0, 0.0, 0.0])
    above = [pair(Reply((-1.0,), reference=(-2.0,)), reply(-90.0))]
    loss, gradient = update(objective, [above])
    assert loss == pytest.approx(math.e - 2)
    assert gradient == pytest.approx([math.e - 1, 0.0])


@pytest.mark.parametrize("options", [{"delta": -1.0}, {"lam": math.nan}, {"kind": "hinge"}, {"reg": "l2"}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SLiCObjective(**options)


@pytest.mark.parametrize("count", range(1, 10))
def test_a_tournament_takes_m_minus_1_comparisons_and_finds_the_best(count: int) -> None:
    asked = []

    def ranker(first: int, second: int) -> bool:
        asked.append((first, second))
        return first > second

    candidates = [(7 * n) % count if count % 7 else n for n in range(count)]
    winner, matches = tournament(ranker, candidates)
    assert winner == max(candidates)
    assert len(asked) == len(matches) == count - 1
    assert all(better > worse for better, worse in matches)
    assert {loser for _, loser in matches} == set(candidates) - {winner}


def test_a_tournament_of_nobody() -> None:
    with pytest.raises(UsageError, match="no candidates"):
        tournament(lambda first, second: first > second, list[int]())
