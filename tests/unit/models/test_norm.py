from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from alignite.models.norm import RMSNorm, use_fast_norms


def norm(kind: Any = LlamaRMSNorm, size: int = 24, dtype: torch.dtype = torch.float32) -> nn.Module:
    made: nn.Module = kind(size, eps=1e-5).to(dtype)
    with torch.no_grad():
        made.weight.uniform_(0.5, 2.0)
    return made


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 3, 24), (0, 24)])
def test_values_and_gradients_equal_transformers(shape: tuple[int, ...], dtype: torch.dtype, trained: bool) -> None:
    theirs = norm(dtype=dtype).requires_grad_(trained)
    ours = copy.deepcopy(theirs)
    use_fast_norms(nn.Sequential(ours))
    assert type(ours) is RMSNorm
    x, weights = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    found = []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y = module(leaf)
        (y * weights).sum().backward()
        found.append([y, leaf.grad, *(p.grad for p in module.parameters() if trained)])
    assert found[0][0].dtype == dtype
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_closed_gradient_is_right_to_float64() -> None:
    module = norm()
    use_fast_norms(nn.Sequential(module))
    module.requires_grad_(False)
    x, weights = torch.randn(5, 24, requires_grad=True), torch.randn(5, 24)
    (found,) = torch.autograd.grad((module(x) * weights).sum(), x)
    exact = x.detach().double().requires_grad_()
    y = module.weight.double() * exact / (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    (expected,) = torch.autograd.grad((y * weights).sum(), exact)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


class CentredRMSNorm(LlamaRMSNorm):
    """Called like one, and another formula."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


def test_only_norms_of_this_formula_are_taken() -> None:
    model = nn.Sequential(norm(), norm(Qwen3RMSNorm), norm(GemmaRMSNorm), norm(CentredRMSNorm), nn.LayerNorm(24))
    parameters, keys = list(model.parameters()), list(model.state_dict())
    x = torch.randn(3, 24)
    before = [module(x) for module in model]
    use_fast_norms(model)
    assert [type(m) for m in model] == [RMSNorm, RMSNorm, GemmaRMSNorm, CentredRMSNorm, nn.LayerNorm]
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == keys
    for module, value in zip(model, before, strict=True):
        torch.testing.assert_close(module(x), value)
    again = pickle.loads(pickle.dumps(model[0]))
    assert torch.equal(again(x), copy.deepcopy(model[0])(x))
