"""float32 products on a CPU, by oneDNN where the BLAS that torch was built with is slow.

torch sends float32 products to MKL, which is best on Intel's CPUs and runs at
half speed on those of other makers; oneDNN compiles its kernels for the
instructions that are there. The choice depends on the machine alone, never on
a measurement, so that a run that resumes takes the same path.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@functools.cache
def _has_onednn() -> bool:
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    return wide and _maker() != "GenuineIntel" and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _maker() -> str:
    """The CPU's vendor as Linux names it; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(r"^vendor_id\s*:\s*(\S+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _suits(x: Tensor, weight: Tensor) -> bool:
    fits = x.dtype == weight.dtype == torch.float32 and x.is_cpu and weight.is_cpu and x.numel() > 0
    return fits and _has_onednn() and bool(torch.backends.mkldnn.enabled)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` without a graph; both may be strided, so ``product(g, w.T)`` is ``g @ w``.

    Args:
        x: (rows, in). ``weight``: (out, in). ``bias``: (out,).

    Returns:
        (rows, out), fresh.
    """
    if _suits(x, weight):
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))
    return x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, by :func:`product` where that suits.

    Args:
        x: (..., in). ``weight``: (out, in). ``bias``: (out,).
    """
    if not _suits(x, weight) or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (flat.requires_grad or weight.requires_grad):
        y = cast("Tensor", _Product.apply(flat, weight, bias))
    else:
        y = product(flat, weight, bias)
    return y.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """``nn.Linear`` whose float32 products on a CPU are :func:`product`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = grads[0]
        d_x = product(g, weight.T) if ctx.needs_input_grad[0] else None
        d_weight = product(g.T, x.T) if ctx.needs_input_grad[1] else None
        d_bias = g.sum(0) if ctx.needs_input_grad[2] else None
        return d_x, d_weight, d_bias


def use_fast_linears(model: nn.Module) -> None:
    """Make every plain ``nn.Linear`` of the model a :class:`Linear`: same object, same parameters, same names."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
