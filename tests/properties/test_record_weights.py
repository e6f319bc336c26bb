"""A record's weight multiplies its loss and what the loss is divided by: twice the weight is the record twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from feedback_batches import Record, loss_of, make_batch, pair, random_columns, ranking, split, summed, value_of
from torch import Tensor

from alignite.objectives.aot import AOT, AOTObjective
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.figa import FIGAObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.reward import RewardObjective
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.objectives.slic import SLiCObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import FeedbackBatch, Objective

MIXED = [
    replace(pair(3, 4, 0.5), prompt=(3, 4, 5)),
    replace(ranking([2.0, 1.0, 1.0, 0.0], [2, 3, 4, 3]), prompt=(6, 7)),
    replace(ranking([1.0, 1.0], [3, 2]), prompt=(8, 9, 3)),
    replace(pair(2, 5), prompt=(4, 4)),
]
PAIRS = [pair(3, 4), pair(2, 5), pair(6, 3)]
OBJECTIVES: dict[str, tuple[Callable[[], Objective], list[Record]]] = {
    "dpo": (lambda: DPOObjective(loss_type=["sigmoid", "ipo", "sft"], loss_weights=[1.0, 0.1, 0.5]), MIXED),
    "aot": (lambda: AOTObjective(loss_type=["aot"], label_smoothing=0.1), MIXED),
    "aot_unpaired": (lambda: AOTObjective(loss_type=["aot_unpaired"], label_smoothing=0.1), MIXED),
    "simpo": (SimPOObjective, MIXED),
    "orpo": (ORPOObjective, MIXED),
    "cpo": (CPOObjective, MIXED),
    "rrhf": (RRHFObjective, MIXED),
    "slic rank": (SLiCObjective, MIXED),
    "slic margin": (lambda: SLiCObjective(kind="margin"), MIXED),
    "slic list": (lambda: SLiCObjective(kind="list"), MIXED),
    "slic reward": (lambda: SLiCObjective(kind="reward"), MIXED),
    "slic k3": (lambda: SLiCObjective(reg="k3"), MIXED),
    "stable_alignment": (StableAlignmentObjective, MIXED),
    "figa": (lambda: FIGAObjective(threshold=3.0), PAIRS),
    "reward": (lambda: RewardObjective(center_rewards_coefficient=0.1, lm_coefficient=0.2), MIXED),
    "reward plackett_luce": (lambda: RewardObjective("plackett_luce", lm_coefficient=0.2), MIXED),
}


def columns_of(batch: FeedbackBatch) -> dict[str, Tensor]:
    """Columns that depend on a record's tokens alone, so that a record has the same wherever it stands."""
    columns = random_columns(batch)
    ids = batch.labels[batch.labels != -100].double()
    columns["policy.logp"] = (-(ids % 7) / 5 - 0.1).requires_grad_()
    columns["reference.logp"] = -(ids % 11) / 7 - 0.5
    ends = batch.segments[batch.replies, 0] + batch.segments[batch.replies, 1] - 1
    last = batch.input_ids[torch.from_numpy(ends)].double()
    columns["policy.score"] = torch.stack([(last % 5) / 3, (last % 3) / 2], 1).requires_grad_()
    return columns


def fixed(records: list[Record]) -> list[Record]:
    """The same with tokens of their own."""
    return [
        replace(
            record,
            replies=tuple(
                replace(reply, ids=tuple(3 + (17 * number + 5 * place + 3 * n) % 31 for n in range(reply.length)))
                for place, reply in enumerate(record.replies)
            ),
        )
        for number, record in enumerate(records)
    ]


def loss(objective: Objective, records: list[Record]) -> float:
    batch = make_batch(records)
    return value_of(objective, batch, columns_of(batch))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_twice_the_weight_is_the_record_twice(name: str) -> None:
    make, given = OBJECTIVES[name]
    records = fixed(given)
    for index in range(len(records)):
        weighted = [replace(record, weight=2.0) if n == index else record for n, record in enumerate(records)]
        doubled = [*records, records[index]]
        assert loss(make(), weighted) == pytest.approx(loss(make(), doubled), rel=1e-6), index


@pytest.mark.parametrize("name", AOT)
@pytest.mark.parametrize("at", [(), (1, 3)])
def test_a_weighted_pair_takes_as_many_places(name: str, at: tuple[int, ...]) -> None:
    objective = AOTObjective(loss_type=[name], beta=0.7)
    records = fixed(MIXED)
    for index in range(len(records)):
        weighted = [replace(record, weight=2.0) if n == index else record for n, record in enumerate(records)]
        columns = columns_of(make_batch(weighted))
        loss, _, outputs = summed(objective, *split(weighted, columns, at, make_batch))
        doubled = [*records, records[index]]
        twice = columns_of(make_batch(doubled))
        expected, _, found = summed(objective, [make_batch(doubled)], [twice])
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert sum(one.terms[name].count for one in outputs) == found[0].terms[name].count
        size = len(columns["policy.logp"])
        (grad,) = torch.autograd.grad(loss, columns["policy.logp"])
        (other,) = torch.autograd.grad(expected, twice["policy.logp"])
        mine = torch.from_numpy(make_batch(weighted).records)[make_batch(weighted).reply_of] == index
        summed_up = other[:size].clone()
        summed_up[mine] += other[size:]
        torch.testing.assert_close(grad, summed_up, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [*OBJECTIVES, "contrast"])
def test_the_same_weight_for_all_changes_nothing_however_small(name: str) -> None:
    make, given = OBJECTIVES.get(name, (InstructionContrastObjective, MIXED))
    records = fixed(given)
    plain = loss(make(), records)
    assert plain != 0
    for weight in (0.01, 7.0):
        same = [replace(record, weight=weight) for record in records]
        assert loss(make(), same) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("name", [*OBJECTIVES, "contrast"])
def test_a_small_weight_is_little_gradient(name: str) -> None:
    make, given = OBJECTIVES.get(name, (InstructionContrastObjective, MIXED))
    records = [replace(record, weight=1e-6 if n == 0 else 1.0) for n, record in enumerate(fixed(given))]
    batch = make_batch(records)
    columns: dict[str, Any] = columns_of(batch)
    loss_of(make(), batch, columns).backward()  # type: ignore[no-untyped-call]
    first = torch.from_numpy(batch.records)[batch.reply_of] == 0
    grads = columns["policy.logp"].grad
    if grads is not None:
        assert float(grads[first].abs().max()) < 1e-5
    scores = columns["policy.score"].grad
    if scores is not None:
        assert float(scores[batch.records == 0].abs().max()) < 1e-5
    assert grads is not None or scores is not None
