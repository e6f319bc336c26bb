from __future__ import annotations

import numpy as np
import pytest
import torch

from alignite.objectives import SFTObjective
from alignite.types import IGNORE, Objective, SftBatch


def batch(labels: list[int]) -> SftBatch:
    tokens = torch.arange(len(labels))
    return SftBatch(tokens, torch.tensor(labels), tokens, np.array([[0, len(labels), -1]]), 1)


def test_it_is_an_objective() -> None:
    assert isinstance(SFTObjective(), Objective)
    assert SFTObjective().state_dict() == {}
    SFTObjective().load_state_dict({})


def test_the_term_is_the_sum_over_scored_tokens_with_its_gradient() -> None:
    logp = torch.tensor([-1.0, -2.5, -0.25], requires_grad=True)
    columns = {
        "policy.logp": logp,
        "policy.entropy": torch.tensor([1.0, 2.0, 0.5]),
        "policy.is_top1": torch.tensor([0.0, 1.0, 1.0]),
    }
    rows = batch([IGNORE, 4, IGNORE, 5, 6])
    output = SFTObjective().loss(columns, rows)
    assert output.terms.keys() == {"sft"}
    term = output.terms["sft"]
    assert (term.sum.item(), term.count, term.weight) == (3.75, 3.0, 1.0)
    assert SFTObjective().counts(rows) == {"sft": term.count}
    term.sum.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-1, -1, -1]
    assert output.metrics == {"mean_token_accuracy": (2.0, 3.0), "entropy": (3.5, 3.0)}


@pytest.mark.parametrize(("labels", "count"), [([IGNORE] * 4, 0.0), ([IGNORE, 0, 0, 1], 3.0)])
def test_counts_come_from_the_labels(labels: list[int], count: float) -> None:
    assert SFTObjective().counts(batch(labels)) == {"sft": count}


def test_nothing_scored_is_a_zero_and_not_a_nan() -> None:
    empty = torch.zeros(0)
    columns = {name: empty for name in SFTObjective.columns}
    term = SFTObjective().loss(columns, batch([IGNORE])).terms["sft"]
    assert (term.sum.item(), term.count) == (0.0, 0.0)
