from __future__ import annotations

import pytest
import torch
from full_logits import VARIANTS, log_softmax

from alignite.models.head import Head


def make(variant: str, bias: bool, dtype: torch.dtype = torch.float64) -> tuple[Head, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, 12, generator=generator, dtype=dtype)
    b = torch.randn(50, generator=generator, dtype=dtype) if bias else None
    hidden = torch.randn(23, 12, generator=generator, dtype=dtype)
    return Head(weight, b, **VARIANTS[variant]), hidden, torch.randint(0, 50, (23,), generator=generator)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_against_full_logits(variant: str, bias: bool, trained: bool, chunk: int) -> None:
    head, hidden, targets = make(variant, bias)
    weights = torch.linspace(-1.0, 1.0, 23, dtype=torch.float64)
    found = []
    for ours in (True, False):
        leaves = [hidden.clone().requires_grad_(), head.weight.clone().requires_grad_(trained)]
        leaves += [head.bias.clone().requires_grad_(trained)] if head.bias is not None else []
        used = Head(leaves[1], leaves[2] if bias else None, head.scale, head.softcap)
        if ours:
            output = used.log_probs(leaves[0], targets, chunk)
            logp, entropy, top = output
        else:
            log_probs = log_softmax(used, leaves[0])
            logp = log_probs.gather(1, targets[:, None])[:, 0]
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            top = (log_probs.argmax(-1) == targets).double()
        (logp * weights).sum().backward()
        found.append([logp, entropy, top, *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    assert len(found[0]) == 4 + trained * (1 + bias)
    for ours_, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours_.detach(), theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sum_of_squared_probabilities(variant: str) -> None:
    head, hidden, _ = make(variant, True)
    expected = log_softmax(head, hidden).exp().square().sum(-1).log()
    torch.testing.assert_close(head.log_sum_sq_probs(hidden, 7), expected, rtol=1e-10, atol=1e-10)
    assert head.log_sum_sq_probs(hidden[:0], 7).shape == (0,)


@pytest.mark.parametrize("trained", [False, True])
def test_gradcheck(trained: bool) -> None:
    head, hidden, targets = make("scaled", True)
    weight = head.weight.requires_grad_(trained)

    def logp(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return Head(w, head.bias, head.scale).log_probs(h, targets, 5).logp

    assert torch.autograd.gradcheck(logp, (hidden.requires_grad_(), weight))


def test_without_a_graph_the_numbers_are_the_same() -> None:
    head, hidden, targets = make("plain", True, torch.float32)
    with torch.no_grad():
        bare = head.log_probs(hidden, targets, 5)
    graphed = head.log_probs(hidden.requires_grad_(), targets, 5)
    assert not bare.logp.requires_grad
    for a, b in zip(bare, graphed, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=5e-5)


def test_large_logits_stay_finite() -> None:
    head, hidden, targets = make("plain", False, torch.float32)
    output = head.log_probs((hidden * 1e4).requires_grad_(), targets, 5)
    output.logp.sum().backward()
    assert torch.isfinite(output.logp).all()
    assert torch.isfinite(output.entropy).all()
    assert (output.entropy >= 0).all()
