"""What must hold of objectives over ranked replies whatever the replies are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked_replies import Record, Reply, pair, terms, update, value

from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.figa import FIGAObjective, token_edits
from alignite.objectives.quark import QuarkObjective, quantiles
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.slic import SLiCObjective, tournament
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import Objective

RANKING: dict[str, Objective] = {
    "rrhf": RRHFObjective(),
    "rrhf mean": RRHFObjective(sft="mean", length_penalty=0.5, rrhf_weight=3.0),
    "rrhf reference": RRHFObjective(mode="reference"),
    "slic rank": SLiCObjective(),
    "slic margin": SLiCObjective(kind="margin", reg="kl"),
    "slic, estimated divergence": SLiCObjective(reg="k3"),
    "slic list": SLiCObjective(kind="list", delta=0.3),
    "slic reward": SLiCObjective(kind="reward"),
    "stable alignment": StableAlignmentObjective(),
    "stable alignment max": StableAlignmentObjective(max_flow=True, ratio=1.0),
    "quark": QuarkObjective(entropy_coef=0.06),
    "quark, estimated divergence": QuarkObjective(kl="k3"),
    "contrast": InstructionContrastObjective(label_smoothing=0.2, entropy_coef=0.1),
}

logps = st.lists(st.floats(-6, -0.01), min_size=1, max_size=4).map(tuple)
scores = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.nan])
replies = st.builds(
    lambda own, score, shift: Reply(own, score, reference=tuple(x + shift for x in own)),
    logps,
    scores,
    st.floats(-1, 1),
)
rankings = st.lists(replies, min_size=1, max_size=4)
updates = st.lists(rankings, min_size=1, max_size=4)
some = settings(max_examples=25, deadline=None)


def close(number: float) -> object:
    return pytest.approx(number, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", RANKING)
@some
@given(records=updates, data=st.data())
def test_the_order_of_replies_and_records_changes_nothing(
    name: str, records: list[Record], data: st.DataObject
) -> None:
    mixed = [data.draw(st.permutations(record)) for record in data.draw(st.permutations(records))]
    assert value(RANKING[name], mixed) == close(value(RANKING[name], records))


@pytest.mark.parametrize("name", RANKING)
@some
@given(records=updates, data=st.data())
def test_how_an_update_is_split_changes_nothing(name: str, records: list[Record], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(records)))
    whole, gradient = update(RANKING[name], [records])
    for parts in ([[record] for record in records], [part for part in (records[:cut], records[cut:]) if part]):
        loss, pieces = update(RANKING[name], parts)
        assert loss == close(whole)
        assert pieces == close(gradient)


@some
@given(
    answers=st.lists(st.tuples(*[st.lists(st.integers(10, 13), min_size=1, max_size=6)] * 2), min_size=1, max_size=4),
    data=st.data(),
)
def test_figa_is_the_same_split_or_not(answers: list[tuple[list[int], ...]], data: st.DataObject) -> None:
    def reply(ids: list[int]) -> Reply:
        own = data.draw(st.lists(st.floats(-2, -0.01), min_size=len(ids), max_size=len(ids)))
        return Reply(tuple(own), ids=tuple(ids))

    records = [pair(reply(revised), reply(original)) for revised, original in answers]
    whole, gradient = update(FIGAObjective(), [records])
    loss, pieces = update(FIGAObjective(), [[record] for record in records[::-1]][::-1])
    assert loss == close(whole)
    assert pieces == close(gradient)


@some
@given(a=st.lists(st.integers(0, 3), max_size=12), b=st.lists(st.integers(0, 3), max_size=12))
def test_edit_scripts_keep_the_same_tokens_and_swap_with_the_sides(a: list[int], b: list[int]) -> None:
    removed, added = token_edits(a, b)
    assert [t for n, t in enumerate(a) if n not in removed] == [t for n, t in enumerate(b) if n not in added]
    assert token_edits(b, a) == (added, removed)
    assert token_edits(a, a) == ([], [])


@some
@given(owns=st.lists(logps, min_size=1, max_size=5), score=st.floats(-3, 3))
def test_equal_scores_leave_no_ranking_loss(owns: list[tuple[float, ...]], score: float) -> None:
    record = [[Reply(own, score) for own in owns]]
    assert terms(RRHFObjective(), record)["rank"] == 0
    for kind in ("rank", "margin", "list", "reward"):
        assert terms(SLiCObjective(kind=kind), record)["calibration"] == 0


@some
@given(record=rankings)
def test_rrhf_gradients_come_from_violated_pairs_alone(record: list[Reply]) -> None:
    _, gradient = update(RRHFObjective(rrhf_weight=1.0), [[record]])
    _, imitation = update(RRHFObjective(rrhf_weight=0.0), [[record]])
    means = [sum(one.logps) / len(one.logps) for one in record]
    expected = []
    for one, mean in zip(record, means, strict=True):
        slope = sum(
            (one.score < other.score and mean > theirs) - (one.score > other.score and mean < theirs)
            for other, theirs in zip(record, means, strict=True)
            if abs(mean - theirs) > 1e-9
        )
        expected += [slope / len(one.logps)] * len(one.logps)
    near = any(0 < abs(a - b) <= 1e-9 for a in means for b in means)
    if not near:
        assert [a - b for a, b in zip(gradient, imitation, strict=True)] == close(expected)


@some
@given(records=st.lists(st.tuples(logps, logps), min_size=1, max_size=4))
def test_slic_without_margin_is_rrhf_without_lengths(records: list[tuple[tuple[float, ...], ...]]) -> None:
    pairs = [pair(Reply(chosen), Reply(rejected)) for chosen, rejected in records]
    rrhf = terms(RRHFObjective(length_penalty=0.0), pairs)["rank"] / len(pairs)
    assert value(SLiCObjective(delta=0.0, lam=0.0), pairs) == close(rrhf)


@some
@given(record=rankings)
def test_rrhf_is_zero_exactly_when_the_order_agrees(record: list[Reply]) -> None:
    means = [sum(one.logps) / len(one.logps) for one in record]
    agrees = all(
        means[i] >= means[j] - 1e-12
        for i, one in enumerate(record)
        for j, other in enumerate(record)
        if one.score > other.score
    )
    assert (terms(RRHFObjective(), [record])["rank"] <= 1e-11) == agrees


@some
@given(rewards=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30), data=st.data())
def test_quantiles_differ_by_one_at_most_and_follow_the_rewards(rewards: list[float], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(rewards)))
    found = quantiles(rewards, number).tolist()
    sizes = [found.count(quantile) for quantile in range(number)]
    assert max(sizes) - min(sizes) <= 1
    places = sorted(range(len(rewards)), key=lambda place: (-rewards[place], place))
    assert [found[place] for place in places] == sorted(found)


@some
@given(candidates=st.lists(st.integers(), min_size=1, max_size=20, unique=True))
def test_a_tournament_is_won_by_the_best(candidates: list[int]) -> None:
    winner, matches = tournament(lambda first, second: first > second, candidates)
    assert winner == max(candidates)
    assert len(matches) == len(candidates) - 1
