"""A seated linear is W x + b + the sum of the active updates, for any shapes, names and scales."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alignite.peft import LoraConfig, adapter_parameters, apply_adapter, merge_adapter, use_adapters


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    ranks=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    alpha=st.floats(0.1, 40.0),
    rslora=st.booleans(),
    bias=st.booleans(),
    trained_base=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_updates_add_up(
    sizes: tuple[int, int],
    rows: list[int],
    ranks: list[int],
    alpha: float,
    rslora: bool,
    bias: bool,
    trained_base: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    wide, narrow = sizes
    model = nn.Sequential(nn.Linear(wide, narrow, bias=bias)).double()
    plain = copy.deepcopy(model)
    delta = torch.zeros(narrow, wide, dtype=torch.float64)
    names = [f"adapter{index}" for index in range(len(ranks))]
    for name, rank in zip(names, ranks, strict=True):
        apply_adapter(model, LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"]), name=name)
        factors = list(adapter_parameters(model, name).values())
        for factor in factors:
            factor.data = torch.randn(factor.shape, dtype=torch.float64)
        delta += alpha / (rank**0.5 if rslora else rank) * (factors[1] @ factors[0]).detach()
    model[0].weight.requires_grad_(trained_base)
    x = torch.randn(*rows, wide, dtype=torch.float64, requires_grad=True)
    with use_adapters(model, names):
        y = model(x)
    expected = nn.functional.linear(x, plain[0].weight + delta, plain[0].bias)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * weights).sum(), x)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)

    for name in names:
        merge_adapter(model, name)
    assert type(model[0]) is nn.Linear
    # weight_delta is float32 by contract, so merging agrees to its precision.
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-3)
