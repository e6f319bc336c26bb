"""What holds of every objective over pairs, whatever the numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from feedback_batches import summed
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import feedback_batch
from torch import Tensor

from alignite.objectives.aot import AOTObjective
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.pair_losses import PAIR_LOSSES
from alignite.objectives.simpo import SimPOObjective
from alignite.types import FeedbackBatch, ReplyRole

OBJECTIVES: dict[str, Any] = {
    **{name: DPOObjective(loss_type=(name, "sft"), label_smoothing=0.1) for name in PAIR_LOSSES},
    "aot": AOTObjective(loss_type=("aot", "aot_unpaired", "sigmoid"), label_smoothing=0.1),
    "simpo": SimPOObjective(),
    "orpo": ORPOObjective(),
    "cpo": CPOObjective(),
    "kto": KTOObjective(),
}
seeds = st.integers(0, 2**31)


def records(draw: np.random.Generator, count: int, labels: bool) -> list[list[tuple[ReplyRole, float]]]:
    """Pairs and rankings with ties, or labelled replies."""
    made = []
    for _ in range(count):
        if labels:
            made.append([(ReplyRole.REPLY, float(draw.integers(2)))])
        elif draw.random() < 0.5:
            made.append([(ReplyRole.CHOSEN, math.nan), (ReplyRole.REJECTED, math.nan)])
        else:
            made.append([(ReplyRole.REPLY, float(draw.integers(3))) for _ in range(draw.integers(1, 5))])
    return made


def batch_of(of: list[list[tuple[ReplyRole, float]]]) -> FeedbackBatch:
    return feedback_batch([(n, *reply) for n, one in enumerate(of) for reply in one])


def columns_of(draw: np.random.Generator, batch: FeedbackBatch) -> dict[str, Tensor]:
    tokens = len(batch.reply_of)
    names = ("policy.logp", "reference.logp", "policy.entropy", "policy.mean_logit")
    return {name: torch.from_numpy(-draw.exponential(1.0, tokens)) for name in names}


def value(objective: Any, parts: list[tuple[dict[str, Tensor], FeedbackBatch]]) -> tuple[float, list[Tensor]]:
    """The loss of an update as the loop computes it, and the gradient of each part's log-probabilities."""
    logps = [columns["policy.logp"].clone().requires_grad_() for columns, _ in parts]
    columns = [given | {"policy.logp": logp} for (given, _), logp in zip(parts, logps, strict=True)]
    batches = [replace(batch, partner=batch) for _, batch in parts]
    loss, _, _ = summed(objective, batches, columns, [given for given, _ in parts])
    return float(loss.detach()), list(torch.autograd.grad(loss, logps))


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_an_update_may_be_split_anywhere(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    made = records(draw, 6, name == "kto")
    whole = batch_of(made)
    columns = columns_of(draw, whole)
    cut = int(draw.integers(1, 6))
    parts, start = [], 0
    for of in (made[:cut], made[cut:]):
        batch = batch_of(of)
        stop = start + len(batch.reply_of)
        parts.append(({n: c[start:stop] for n, c in columns.items()}, batch))
        start = stop
    loss, (gradient,) = value(OBJECTIVES[name], [(columns, whole)])
    split, gradients = value(OBJECTIVES[name], parts)
    assert split == pytest.approx(loss, abs=1e-9)
    torch.testing.assert_close(torch.cat(gradients), gradient)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_order_of_records_and_replies_does_not_matter(name: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    made = records(draw, 4, name == "kto")
    columns = columns_of(draw, batch_of(made))
    flat = [(n, reply) for n, one in enumerate(made) for reply in one]
    order = sorted(range(len(flat)), key=lambda index: (-flat[index][0], draw.random()))
    tokens = torch.tensor([token for index in order for token in (2 * index, 2 * index + 1)])
    turned = feedback_batch([(len(made) - 1 - flat[index][0], *flat[index][1]) for index in order])
    loss, _ = value(OBJECTIVES[name], [(columns, batch_of(made))])
    other, _ = value(OBJECTIVES[name], [({n: c[tokens] for n, c in columns.items()}, turned)])
    assert other == pytest.approx(loss, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_policy_that_is_its_reference_starts_at_ln_2(seed: int) -> None:
    draw = np.random.default_rng(seed)
    batch = batch_of([[(ReplyRole.CHOSEN, math.nan), (ReplyRole.REJECTED, math.nan)] for _ in range(3)])
    columns = columns_of(draw, batch)
    columns["reference.logp"] = columns["policy.logp"]
    for name in ("sigmoid", "robust", "sigmoid_norm"):
        loss, _ = value(DPOObjective(loss_type=(name,)), [(columns, batch)])
        assert loss == pytest.approx(math.log(2), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_satisfied_hinge_has_no_gradient_and_swapped_pairs_mirror(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = batch_of([[(ReplyRole.CHOSEN, math.nan), (ReplyRole.REJECTED, math.nan)]])
    swapped = batch_of([[(ReplyRole.REJECTED, math.nan), (ReplyRole.CHOSEN, math.nan)]])
    columns = columns_of(draw, pairs)
    columns["policy.logp"] = columns["reference.logp"] + torch.tensor([6.0, 6.0, -6.0, -6.0])
    loss, (gradient,) = value(DPOObjective(beta=0.1, loss_type=("hinge",)), [(columns, pairs)])
    assert loss == 0.0
    assert not gradient.any()
    _, (one,) = value(DPOObjective(beta=0.1), [(columns, pairs)])
    _, (other,) = value(DPOObjective(beta=0.1), [(columns, swapped)])
    # d/dh -log s(h) is -s(-h): the two slopes sum to beta.
    torch.testing.assert_close(-one[0] + other[0], torch.tensor(0.1, dtype=torch.float64))


def test_ties_and_lone_replies_count_for_nothing() -> None:
    batch = feedback_batch([(0, ReplyRole.REPLY, 1.0), (0, ReplyRole.REPLY, 1.0), (1, ReplyRole.REPLY, 2.0)])
    columns = columns_of(np.random.default_rng(0), batch)
    for objective in (DPOObjective(), SimPOObjective(), ORPOObjective()):
        loss, (gradient,) = value(objective, [(columns, batch)])
        assert loss == 0.0
        assert not gradient.any()
