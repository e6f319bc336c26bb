"""Losses of pairs at values that were computed apart from this code, in float64 by the papers' formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from reward_batches import feedback_batch, pair_batch
from torch import Tensor

from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.types import ReplyRole

# Two pairs: sums of log-probabilities of the chosen and the rejected reply, under the policy and the reference.
POLICY = [(-10.0, -12.0), (-7.0, -6.0)]
REFERENCE = [(-11.0, -11.5), (-7.5, -7.0)]
TOKENS = 2


def tokens_of(sums: Sequence[tuple[float, float]]) -> Tensor:
    """Each reply's sum over two tokens, unevenly."""
    flat = torch.tensor([value for pair in sums for value in pair], dtype=torch.float64)
    return torch.stack([flat * 0.25, flat * 0.75], dim=1).flatten()


def columns_of(policy: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]]) -> dict[str, Tensor]:
    logp = tokens_of(policy)
    blank = torch.zeros_like(logp)
    given = {"policy.logp": logp, "policy.entropy": blank, "policy.mean_logit": blank}
    return given | {"reference.logp": tokens_of(reference)}


def losses(objective: Any, policy: Any = POLICY, reference: Any = REFERENCE) -> list[float]:
    """Of each pair alone, all terms by their weights."""
    found = []
    for one, other in zip(policy, reference, strict=True):
        output = objective.loss(columns_of([one], [other]), pair_batch([None], [None]))
        assert objective.counts(pair_batch([None], [None])) == {n: t.count for n, t in output.terms.items()}
        found.append(sum(term.weight * float(term.sum) / term.count for term in output.terms.values()))
    return found


DPO = {
    ("sigmoid", 0.0): (0.6209570477895321, 0.7184596480132863),
    ("sigmoid", 0.1): (0.6359570477895321, 0.7134596480132863),
    ("robust", 0.1): (0.602207047789532, 0.7247096480132862),
    ("ipo_sum", 0.0): (12.25, 30.25),
    # Means over two tokens: (1.5 / 2 - 5)^2 and (-0.5 / 2 - 5)^2.
    ("ipo", 0.0): (18.0625, 27.5625),
    ("hinge", 0.0): (0.85, 1.05),
}


@pytest.mark.parametrize(("name", "smoothing"), DPO)
def test_dpo(name: str, smoothing: float) -> None:
    found = losses(DPOObjective(beta=0.1, loss_type=(name,), label_smoothing=smoothing))
    assert found == pytest.approx(DPO[name, smoothing], abs=1e-7)


def s(z: float) -> float:
    return 1 / (1 + math.exp(-z))


# By hand from chosen and rejected log-ratios (1, -0.5) and (0.5, 1) at beta 0.1.
BY_HAND = {
    "sigmoid_norm": lambda w, r: -math.log(s(0.1 * (w - r) / TOKENS)),
    "exo_pair": lambda w, r: (
        s(0.1 * (w - r)) * (math.log(s(0.1 * (w - r))) - math.log(0.8))
        + s(-0.1 * (w - r)) * (math.log(s(-0.1 * (w - r))) - math.log(0.2))
    ),
    "nca_pair": lambda w, r: -math.log(s(0.1 * w)) - 0.5 * math.log(s(-0.1 * w)) - 0.5 * math.log(s(-0.1 * r)),
    "bco_pair": lambda w, r: -math.log(s(0.1 * w)) - math.log(s(-0.1 * r)),
    "sppo_hard": lambda w, r: (w - 5) ** 2 + (r + 5) ** 2,
    "apo_zero": lambda w, r: 1 - s(0.1 * w) + s(0.1 * r),
    "apo_down": lambda w, r: s(0.1 * w) + 1 - s(0.1 * (w - r)),
    "discopop": lambda w, r: (
        -math.log(s(0.1 * (w - r))) * (1 - s(2 * (w - r))) + math.exp(-0.1 * (w - r)) * s(2 * (w - r))
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_other_losses_of_pairs(name: str) -> None:
    found = losses(DPOObjective(beta=0.1, loss_type=(name,), label_smoothing=0.2 if name == "exo_pair" else 0.0))
    assert found == pytest.approx([BY_HAND[name](1.0, -0.5), BY_HAND[name](0.5, 1.0)], abs=1e-7)


DIVERGENCES = {
    ("forward_kl", 0.5): lambda r: 1 - math.exp(-r),
    ("js_divergence", 0.5): lambda r: math.log(2 * math.exp(r) / (1 + math.exp(r))),
    ("alpha_divergence", 0.5): lambda r: (math.exp(-0.5 * r) - 1) / -0.5,
    ("alpha_divergence", 1.0): lambda r: r,
}


@pytest.mark.parametrize(("name", "alpha"), DIVERGENCES)
def test_f_divergences(name: str, alpha: float) -> None:
    f = DIVERGENCES[name, alpha]
    found = losses(DPOObjective(beta=0.1, f_divergence_type=name, f_alpha_divergence_coef=alpha))
    expected = [-math.log(s(0.1 * (f(w) - f(r)))) for w, r in ((1.0, -0.5), (0.5, 1.0))]
    assert found == pytest.approx(expected, abs=1e-7)


def test_margins_and_soft_labels() -> None:
    batch = pair_batch([0.5, None], [None, 0.7])
    output = DPOObjective(beta=0.1).loss(columns_of(POLICY, REFERENCE), batch)
    expected = -math.log(s(0.15 - 0.5)) - 0.7 * math.log(s(-0.05)) - 0.3 * math.log(s(0.05))
    assert float(output.terms["sigmoid"].sum) == pytest.approx(expected, abs=1e-6)


def test_several_losses_are_added_by_their_weights() -> None:
    found = losses(DPOObjective(beta=0.1, loss_type=("sigmoid", "hinge", "sft"), loss_weights=(1.0, 0.5, 2.0)))
    expected = [0.6209570477895321 + 0.5 * 0.85 + 2 * 10 / TOKENS, 0.7184596480132863 + 0.5 * 1.05 + 2 * 7 / TOKENS]
    assert found == pytest.approx(expected, abs=1e-6)


# Means of two tokens: a_w = (-2, -1.75), a_l = (-1.5, -2).
MEANS = [(-4.0, -3.0), (-3.5, -4.0)]


def test_simpo() -> None:
    found = losses(SimPOObjective(beta=2.0, simpo_gamma=1.0), MEANS)
    assert found == pytest.approx([2.1269280110429727, 0.9740769841801067], abs=1e-7)


def test_orpo() -> None:
    objective = ORPOObjective(beta=0.1)
    assert losses(objective, MEANS) == pytest.approx([2.1042057807927135, 1.8056284074255928], abs=1e-7)
    output = objective.loss(columns_of(MEANS, MEANS), pair_batch([None, None], [None, None]))
    total, count = output.metrics["log_odds_chosen"]
    assert total / count == pytest.approx((-0.6070690010565949 + 0.2954734088246878) / 2, abs=1e-7)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "sigmoid": (-math.log(s(0.2)), -math.log(s(-0.1))),
        "hinge": (0.8, 1.1),
        "ipo": ((1 - 5.0) ** 2, (-0.5 - 5.0) ** 2),
    }.items(),
)
def test_cpo(name: str, expected: tuple[float, float]) -> None:
    found = losses(CPOObjective(beta=0.1, loss_type=name, cpo_alpha=0.5))
    imitation = (0.5 * 10 / TOKENS, 0.5 * 7 / TOKENS)
    assert found == pytest.approx([a + b for a, b in zip(expected, imitation, strict=True)], abs=1e-7)


@pytest.mark.parametrize(("label", "expected"), [(1.0, 0.48250714233361025), (0.0, 0.5174928576663897)])
def test_kto(label: float, expected: float) -> None:
    # The reply's log-ratio is 1; its partner's, 0.3, is z0.
    one = feedback_batch([(0, ReplyRole.REPLY, label)])
    objective = KTOObjective(beta=0.1)
    partner = {"policy.logp": torch.tensor([-1.0, -1.0]), "reference.logp": torch.tensor([-1.1, -1.2])}
    (given,) = objective.prepass([partner], [replace(one, partner=one)], lambda sums: sums)
    blank = torch.zeros(2)
    columns = {"policy.logp": torch.tensor([-1.0, -2.0]), "reference.logp": torch.tensor([-1.5, -2.5])}
    output = objective.loss(columns | {"policy.entropy": blank, "policy.mean_logit": blank} | dict(given), one)
    assert float(output.terms["kto"].sum) == pytest.approx(expected, abs=1e-6)
