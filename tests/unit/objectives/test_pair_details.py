"""Lengths of weights below 1, rankings' best replies, long replies in float32, divergences that reach no loss."""

from __future__ import annotations

import pytest
import torch
from feedback_batches import Record, Reply, columns_of_sums, make_batch, random_columns, ranking, value_of

from alignite.errors import ConfigError
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.simpo import SimPOObjective
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


def test_a_divergence_that_a_loss_does_not_use_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not reach apo_zero"):
        DPOObjective(f_divergence_type="forward_kl", loss_type=("sigmoid", "apo_zero"))
