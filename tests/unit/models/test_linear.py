from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from alignite.models import linear as room
from alignite.models.linear import Linear, linear, product, use_fast_linears


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """oneDNN where torch has it, whatever this machine would choose, and the way that other machines take."""
    chosen = bool(request.param) and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    monkeypatch.setattr(room, "_has_onednn", lambda: chosen)
    return bool(request.param)


@pytest.mark.parametrize("rows", [1, 2, 13, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_exact_to_float32_also_of_strided_operands(rows: int, bias: bool, either_way: bool) -> None:
    x, weight = torch.randn(rows, 24), torch.randn(40, 24)
    b = torch.randn(40) if bias else None
    expected = (x.double() @ weight.double().T + (0.0 if b is None else b.double())).float()
    torch.testing.assert_close(product(x, weight, b), expected, rtol=1e-5, atol=1e-5)
    strided = product(x.T.contiguous().T, weight.T.contiguous().T, b)
    torch.testing.assert_close(strided, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 24), (2, 7, 24), (0, 24), (24,)])
@pytest.mark.parametrize("trained", [True, False])
def test_linear_and_its_gradients_equal_torchs(shape: tuple[int, ...], trained: bool, either_way: bool) -> None:
    x, weight, bias = torch.randn(shape), torch.randn(40, 24), torch.randn(40)
    found = []
    for function in (linear, nn.functional.linear):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_(trained), bias.clone()]
        leaves[2].requires_grad_(trained)
        y = function(*leaves)
        y.square().sum().backward()
        found.append([y, *(leaf.grad for leaf in leaves if leaf.requires_grad)])
    assert len(found[0]) == (4 if trained else 2)
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_take_torchs_way(dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 8, dtype=dtype), torch.randn(6, 8, dtype=dtype)
    assert torch.equal(linear(x, weight), nn.functional.linear(x, weight))


def test_autocast_is_respected() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.randn(5, 8), torch.randn(6, 8)).dtype == torch.bfloat16


def test_linears_keep_their_objects_parameters_and_copies() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(8, 6), Own(6, 4))
    parameters, state = list(model.parameters()), copy.deepcopy(model.state_dict())
    x = torch.randn(3, 8)
    before = model(x)
    use_fast_linears(model)
    assert [type(module) for module in model] == [Linear, Own]
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == list(state)
    torch.testing.assert_close(model(x), before)
    again = pickle.loads(pickle.dumps(model[0]))
    assert type(again) is Linear
    torch.testing.assert_close(copy.deepcopy(model[0])(x), again(x))
