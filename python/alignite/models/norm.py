"""RMSNorm in float32 on a CPU, with a gradient in closed form.

transformers writes the norm as six operators, each a pass over memory forward
and more of them backward; here the statistic is one pass and its gradient two.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """y = w x / sqrt(mean(x^2) + eps) over the last axis (arXiv 1910.07467, equation 4)."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        x, weight = hidden_states, self.weight
        if x.is_cpu and x.dtype == weight.dtype == torch.float32 and not weight.requires_grad:
            return cast("Tensor", _Frozen.apply(x, weight, self.variance_epsilon))
        return _formula(x, weight, self.variance_epsilon)


class _Frozen(torch.autograd.Function):
    """With r = 1 / sqrt(mean(x^2) + eps) and h = w dy: dx = r (h - x r^2 mean(h x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        r = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, r)
        y: Tensor = (x * r).mul_(weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        h = grads[0] * weight
        mean = torch.linalg.vecdot(h, x).unsqueeze(-1).div_(-x.shape[-1])
        return h.addcmul_(x, mean.mul_(r.square())).mul_(r), None, None


def use_fast_norms(model: nn.Module) -> None:
    """Make every norm of the model that computes this formula an :class:`RMSNorm`: same object, same parameters.

    Whether it does is tried: norms that add one to their weight, say, stay as they are.
    """
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and _is_plain(module):
            module.__class__ = RMSNorm


def _is_plain(module: nn.Module) -> bool:
    parts = [*module.named_parameters(), *module.named_buffers(), *module.named_children()]
    if [name for name, _ in parts] != ["weight"] or not hasattr(module, "variance_epsilon"):
        return False
    weight, eps = cast("Tensor", module.weight), cast("float", module.variance_epsilon)
    like: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
    probe = torch.linspace(-2.0, 3.0, 2 * weight.numel(), **like).view(2, -1)
    # A weight of our own: the model's may be one everywhere, or zero, and hide what is done with it.
    own = torch.linspace(0.5, 1.5, weight.numel(), **like)
    with torch.no_grad():
        theirs = torch.func.functional_call(module, {"weight": own}, (probe,))
        return torch.allclose(theirs, _formula(probe, own, eps), rtol=1e-5, atol=1e-6)


def _formula(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)
