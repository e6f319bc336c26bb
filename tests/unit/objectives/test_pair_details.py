"""Lengths of weights below 1, rankings' best replies, long replies in float32, divergences that reach no loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from feedback_batches import (
    Record,
    Reply,
    columns_of_sums,
    loss_of,
    make_batch,
    pair,
    random_columns,
    ranking,
    value_of,
)

from alignite.errors import ConfigError
from alignite.objectives.cpo import CPO_LOSSES, CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.pair_losses import DIVERGENCES, PAIR_LOSSES, RATIO_LOSSES
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.objectives.slic import KINDS, SLiCObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import ReplyRole


def test_a_mean_is_over_weights_that_sum_to_less_than_1() -> None:
    sides = [Reply(2, role, weights=(w, w)) for role, w in ((ReplyRole.CHOSEN, 0.1), (ReplyRole.REJECTED, 1.0))]
    light, plain = make_batch([Record(tuple(sides))]), make_batch([Record(tuple(Reply(2, s.role) for s in sides))])
    columns = random_columns(light)
    for objective in (SimPOObjective(), DPOObjective(loss_type=("ipo",)), CPOObjective(loss_type="ipo", cpo_alpha=0.0)):
        # Weights that are the same at each token of a reply change no mean over its tokens.
        assert value_of(objective, light, columns) == pytest.approx(value_of(objective, plain, columns), rel=1e-6)


def test_of_a_ranking_the_best_reply_is_imitated() -> None:
    batch = make_batch([ranking((3.0, 2.0, 1.0), (2, 3, 4))])
    columns = columns_of_sums(batch, (-4.0, -30.0, -40.0))
    assert value_of(DPOObjective(loss_type=("sft",)), batch, columns) == pytest.approx(2.0)


def test_log_ratios_of_long_replies_keep_their_digits() -> None:
    batch = make_batch([Record((Reply(2000, ReplyRole.CHOSEN), Reply(1, ReplyRole.REJECTED)))])
    draw = torch.Generator().manual_seed(0)
    reference = -3 * torch.rand(2001, generator=draw, dtype=torch.float64)
    policy = reference + 0.01 * torch.randn(2001, generator=draw, dtype=torch.float64)
    exact = {**random_columns(batch), "policy.logp": policy.requires_grad_(), "reference.logp": reference}
    rounded = {name: column.detach().float() for name, column in exact.items()}
    # float32 log-probabilities are good to 2e-7 each; their sums, near 3000, only to 1e-4.
    objective = DPOObjective(loss_type=("ipo_sum",), beta=0.5)
    root = [value_of(objective, batch, columns) ** 0.5 for columns in (exact, rounded)]
    assert root[0] == pytest.approx(root[1], abs=2e-5)


LOSSES: dict[str, Any] = {
    **{
        f"{name} {divergence}": DPOObjective(loss_type=(name,), f_divergence_type=divergence, label_smoothing=0.1)
        for name in PAIR_LOSSES
        for divergence in DIVERGENCES
        if divergence == "reverse_kl" or name not in RATIO_LOSSES
    },
    "discopop, slow blend": DPOObjective(loss_type=("discopop",), discopop_tau=3.0, beta=5.0),
    "simpo": SimPOObjective(),
    **{f"cpo {name}": CPOObjective(loss_type=name) for name in CPO_LOSSES},
    "orpo": ORPOObjective(),
    **{f"slic {kind}": SLiCObjective(kind=kind) for kind in KINDS},
    "rrhf": RRHFObjective(),
    "stable alignment": StableAlignmentObjective(),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("far", "dtype"), [(1e4, torch.float32), (300.0, torch.bfloat16)])
def test_far_from_each_other_replies_have_a_finite_loss_and_gradient(name: str, far: float, dtype: torch.dtype) -> None:
    batch = make_batch([pair(1, 1), pair(1, 1)])
    for chosen, rejected in ((-far, 0.0), (0.0, -far), (-far, -far)):
        columns = columns_of_sums(batch, (chosen, rejected) * 2, (0.0, 0.0, -far, -far), dtype)
        loss = loss_of(LOSSES[name], batch, columns)
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.isfinite()
        assert columns["policy.logp"].grad is not None
        assert columns["policy.logp"].grad.isfinite().all()


def test_a_divergence_that_a_loss_does_not_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not reach apo_zero"):
        DPOObjective(f_divergence_type="forward_kl", loss_type=("sigmoid", "apo_zero"))
