from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from alignite.config import TrainingConfig
from alignite.errors import CheckpointError
from alignite.training.optim import Optimizer, learning_rate


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("total", "warmup"), [(20, 0), (20, 6), (7, 7), (1, 0)])
def test_rates_are_those_of_transformers(kind: str, total: int, warmup: int) -> None:
    config = TrainingConfig(lr_scheduler_type=kind, warmup_steps=warmup, learning_rate=3e-4)
    plain = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = {
        "linear": lambda: get_linear_schedule_with_warmup(plain, warmup, total),
        "cosine": lambda: get_cosine_schedule_with_warmup(plain, warmup, total),
        "constant": lambda: get_constant_schedule_with_warmup(plain, warmup),
    }[kind]()
    for step in range(total):
        assert learning_rate(config, step, total) == pytest.approx(schedule.get_last_lr()[0], rel=1e-12, abs=1e-20)
        plain.step()
        schedule.step()


def test_the_warmup_ratio_is_a_share_of_all_updates() -> None:
    by_ratio, by_steps = TrainingConfig(warmup_ratio=0.11), TrainingConfig(warmup_steps=3)
    rates = [[learning_rate(config, step, 20) for step in range(20)] for config in (by_ratio, by_steps)]
    assert rates[0] == rates[1]


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {
        "weight": nn.Parameter(torch.randn(4, 3, dtype=dtype)),
        "bias": nn.Parameter(torch.randn(4, dtype=dtype)),
    }


def test_an_update_is_torchs_adamw_without_decay_on_biases() -> None:
    config = TrainingConfig(weight_decay=0.3, max_grad_norm=0, learning_rate=0.01)
    ours, theirs = parameters(), parameters()
    optimizer = Optimizer(ours, config)
    reference = torch.optim.AdamW(
        [
            {"params": [theirs["weight"]], "weight_decay": 0.3},
            {"params": [theirs["bias"]], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    for step in range(4):
        for name, value in ours.items():
            gradient = torch.randn(value.shape, generator=torch.Generator().manual_seed(step))
            value.grad, theirs[name].grad = gradient, gradient.clone()
        optimizer.step(0.01, optimizer.gradient_norm())
        reference.step()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-7)


def test_updates_below_bfloat16s_resolution_add_up_in_the_master() -> None:
    values = {"weight": nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))}
    optimizer = Optimizer(values, TrainingConfig(max_grad_norm=0, adam_beta1=0.0, adam_beta2=0.0))
    for _ in range(100):
        values["weight"].grad = torch.ones(2, 2, dtype=torch.bfloat16)
        optimizer.step(1e-4, optimizer.gradient_norm())
    # One update of 1e-4 on 1.0 rounds to nothing in bfloat16; a hundred of them do not.
    assert optimizer.masters["weight"][0, 0].item() == pytest.approx(0.99, abs=1e-4)
    assert torch.equal(values["weight"], optimizer.masters["weight"].bfloat16())


def test_a_parameter_without_gradient_counts_as_zero() -> None:
    values = parameters()
    optimizer = Optimizer(values, TrainingConfig())
    values["weight"].grad = torch.full((4, 3), 2.0)
    assert optimizer.gradient_norm().item() == pytest.approx(2 * 12**0.5)


def test_the_state_goes_on_where_it_was_and_fits_only_its_parameters() -> None:
    config = TrainingConfig()
    first = parameters(torch.bfloat16)
    optimizer = Optimizer(first, config)
    for value in first.values():
        value.grad = torch.ones_like(value)
    optimizer.step(0.1, optimizer.gradient_norm())
    saved = optimizer.state_tensors()
    assert {"master/weight", "exp_avg/weight", "exp_avg_sq/bias", "step/bias"} <= saved.keys()
    second = parameters(torch.bfloat16)
    again = Optimizer(second, config)
    again.load_state_tensors(saved)
    for values, restored in ((first, optimizer), (second, again)):
        for value in values.values():
            value.grad = torch.ones_like(value)
        restored.step(0.1, restored.gradient_norm())
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(CheckpointError, match="bias"):
        Optimizer({"weight": second["weight"]}, config).load_state_tensors(saved)
