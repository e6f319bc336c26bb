from __future__ import annotations

import numpy as np
import pytest
import torch
from ranked_replies import batch_of, columns_of, pair, reply, value

from alignite.objectives.pieces import sequence_loss
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.sft import SFTObjective
from alignite.objectives.slic import SLiCObjective
from alignite.types import IGNORE, Objective, SftBatch

RECORDS = [pair(reply(-4.0, 2), reply(-1.0, 1)), [reply(-3.0, 3, 1.0), reply(-1.0, 1, 0.0)]]


@pytest.mark.parametrize("objective", [RRHFObjective(rrhf_weight=3.0), SLiCObjective(lam=0.25)])
def test_a_batch_is_an_update_of_its_own(objective: Objective) -> None:
    columns = columns_of(RECORDS)
    loss = sequence_loss(objective, columns, batch_of(RECORDS))
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(value(objective, RECORDS))
    loss.backward()  # type: ignore[no-untyped-call]
    assert columns["policy.logp"].grad is not None


def test_a_count_below_1_is_what_its_term_is_divided_by() -> None:
    weights = torch.tensor([0.0, 0.2, 0.1])
    batch = SftBatch(
        torch.ones(3).long(), torch.tensor([IGNORE, 1, 1]), torch.arange(3), np.array([[0, 3, -1]]), 1, weights
    )
    logp = torch.tensor([-1.0, -4.0], requires_grad=True)
    columns = {"policy.logp": logp, "policy.entropy": torch.zeros(2), "policy.is_top1": torch.zeros(2)}
    assert sequence_loss(SFTObjective(), columns, batch).item() == pytest.approx((0.2 + 0.4) / 0.3)


def test_a_term_with_nothing_to_count_is_a_zero_with_a_graph() -> None:
    tied = [[reply(-1.0, 1, 1.0), reply(-2.0, 1, 1.0)]]
    columns = columns_of(tied)
    loss = sequence_loss(SLiCObjective(lam=0.0), columns, batch_of(tied))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert columns["policy.logp"].grad is not None
    assert torch.equal(columns["policy.logp"].grad, torch.zeros(2, dtype=torch.float64))
