"""Log-probabilities of scored tokens, from hidden states, without keeping logits.

For a log-probability l = log softmax(W h)[y] the gradient is a vector a token:

    dl/dh = W[y] - softmax(W h) W

With a frozen head the forward pass computes that vector while the chunk's
softmax is at hand, so backward is one multiplication, exact for every
objective on l, and no logits outlive their chunk. The same product gives the
entropy: H = logsumexp - h . (softmax W). A trainable head needs the softmax
again in backward for dW, and recomputes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignite.errors import AdapterError
from alignite.models.linear import product
from alignite.types import SeatedLinear

if TYPE_CHECKING:
    from torch import nn


class HeadOutput(NamedTuple):
    """Each (scored,) float32; only ``logp`` has a graph."""

    logp: Tensor
    entropy: Tensor
    is_top1: Tensor


@dataclass(frozen=True)
class Head:
    """A vocabulary projection: logits = softcap(scale * (weight @ h + bias))."""

    weight: Tensor
    bias: Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Head:
        """The head of a causal LM, with the scalings that its config asks for.

        Raises:
            AdapterError: an adapter is active on it.
        """
        config: Any = model.config
        linear: Any = model.get_output_embeddings()  # type: ignore[operator]
        if isinstance(linear, SeatedLinear) and linear.low_rank_updates() != ():
            raise AdapterError(
                "the vocabulary head carries an adapter, which log-probabilities would miss",
                fix="leave the vocabulary head out of target_modules",
            )
        scale = 1.0
        if getattr(config, "logit_scale", None) is not None:  # cohere
            scale = float(config.logit_scale)
        elif getattr(config, "logits_scaling", None) is not None:  # granite
            scale = 1.0 / float(config.logits_scaling)
        return cls(linear.weight, linear.bias, scale, getattr(config, "final_logit_softcapping", None))

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) to fresh float32 (n, vocabulary)."""
        logits = product(hidden, self.weight, self.bias)
        logits = logits.to(_accumulator(logits.dtype))
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        if self.softcap is not None:
            logits = logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits

    def log_probs(self, hidden: Tensor, targets: Tensor, chunk_size: int) -> HeadOutput:
        """Log-probability of each target, with the distribution's entropy and whether the target is its mode.

        Args:
            hidden: (n, hidden), at the position before each target.
            targets: int64 (n,).
            chunk_size: how many positions have their logits in memory at a time.
        """
        # Equal chunks: a short one at the end would read the whole weight for a few rows.
        chunk_size = math.ceil(len(hidden) / max(math.ceil(len(hidden) / chunk_size), 1)) or 1
        if not torch.is_grad_enabled() or not (hidden.requires_grad or self.weight.requires_grad):
            parts = [
                _forward(self, h, y, want_direction=False)[:3]
                for h, y in zip(torch.split(hidden, chunk_size), torch.split(targets, chunk_size), strict=True)
            ]
            return HeadOutput(*_concatenate(parts, hidden))
        if self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad):
            return HeadOutput(*_TrainableHead.apply(hidden, self.weight, self.bias, targets, self, chunk_size))
        return HeadOutput(*_FrozenHead.apply(hidden, targets, self, chunk_size))

    def mean_logits(self, hidden: Tensor, chunk_size: int) -> Tensor:
        """The mean over the vocabulary of each position's logits, (n,) float32, without a graph."""
        with torch.no_grad():
            if self.softcap is not None:
                parts = [self.logits(part).mean(-1) for part in torch.split(hidden, chunk_size)]
                return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
            wide = _accumulator(hidden.dtype)
            mean = hidden.to(wide) @ self.weight.mean(0, dtype=wide)
            return self.scale * (mean if self.bias is None else mean + self.bias.mean(dtype=wide))

    def log_sum_sq_probs(self, hidden: Tensor, chunk_size: int) -> Tensor:
        """log of the sum over the vocabulary of squared probabilities, (n,) in nats, without a graph."""
        with torch.no_grad():
            parts = []
            for part in torch.split(hidden, chunk_size):  # a single empty one of no positions
                logits = self.logits(part)
                parts.append((2 * logits).logsumexp(-1) - 2 * logits.logsumexp(-1))
            return torch.cat(parts)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _concatenate(parts: Sequence[tuple[Tensor, ...]], like: Tensor) -> list[Tensor]:
    if not parts:
        empty = torch.zeros(0, dtype=_accumulator(like.dtype), device=like.device)
        return [empty, empty.clone(), empty.clone()]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _residual(head: Head, logits: Tensor, targets: Tensor, factor: Tensor | None) -> Tensor:
    """d logp / d (weight @ h), in place of ``logits``, times ``factor`` a row."""
    slope = None if head.softcap is None else 1.0 - (logits / head.softcap).square()
    residual = logits.sub_(logits.logsumexp(-1, keepdim=True)).exp_().neg_()
    residual[torch.arange(len(targets), device=targets.device), targets] += 1.0
    if slope is not None:
        residual.mul_(slope)
    if factor is not None:
        residual.mul_(factor[:, None] * head.scale)
    elif head.scale != 1.0:
        residual.mul_(head.scale)
    return residual


def _forward(
    head: Head, hidden: Tensor, targets: Tensor, *, want_direction: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(logp, entropy, is_top1, d logp / d hidden) of one chunk."""
    logits = head.logits(hidden)
    chosen = logits.gather(1, targets[:, None])[:, 0]
    top = logits.amax(-1)
    is_top1 = (chosen >= top).to(logits.dtype)
    if not want_direction or head.softcap is not None:
        lse = logits.logsumexp(-1)
        logp = chosen - lse
        entropy = lse - torch.linalg.vecdot((logits - lse[:, None]).exp_(), logits)
        direction = (
            product(_residual(head, logits, targets, None).to(hidden.dtype), head.weight.T) if want_direction else None
        )
        return logp, entropy, is_top1, direction
    # The hot path: three passes over the chunk (max, exp, sum), and one product for the direction and the entropy.
    weights = logits.sub_(top[:, None]).exp_()
    total = weights.sum(-1)
    lse = total.log() + top
    mean = product(weights.to(hidden.dtype), head.weight.T).div_(total[:, None].to(hidden.dtype))
    entropy = lse - head.scale * torch.linalg.vecdot(mean.to(lse.dtype), hidden.to(lse.dtype))
    if head.bias is not None:
        entropy = entropy - head.scale * (weights @ head.bias.to(lse.dtype)) / total
    entropy.clamp_(min=0.0)  # a difference of two large numbers when the logits are large
    direction = mean.neg_().add_(head.weight[targets])
    if head.scale != 1.0:
        direction.mul_(head.scale)
    return chosen - lse, entropy, is_top1, direction


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head, chunk_size: int) -> tuple[Tensor, ...]:
        directions = torch.empty_like(hidden)
        parts = []
        for start in range(0, len(hidden), chunk_size):
            part = slice(start, start + chunk_size)
            logp, entropy, is_top1, direction = _forward(head, hidden[part], targets[part], want_direction=True)
            assert direction is not None
            parts.append((logp, entropy, is_top1))
            directions[part] = direction
        ctx.save_for_backward(directions)
        logp, entropy, is_top1 = _concatenate(parts, hidden)
        ctx.mark_non_differentiable(entropy, is_top1)
        return logp, entropy, is_top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (directions,) = ctx.saved_tensors
        return (directions * grads[0][:, None].to(directions.dtype), None, None, None)


class _TrainableHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: Head, chunk_size: int
    ) -> tuple[Tensor, ...]:
        parts = [
            _forward(head, h, y, want_direction=False)[:3]
            for h, y in zip(torch.split(hidden, chunk_size), torch.split(targets, chunk_size), strict=True)
        ]
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.scale, ctx.softcap, ctx.chunk_size = head.scale, head.softcap, chunk_size
        logp, entropy, is_top1 = _concatenate(parts, hidden)
        ctx.mark_non_differentiable(entropy, is_top1)
        return logp, entropy, is_top1

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        head = Head(weight, bias, ctx.scale, ctx.softcap)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        for start in range(0, len(hidden), ctx.chunk_size):
            part = slice(start, start + ctx.chunk_size)
            residual = _residual(head, head.logits(hidden[part]), targets[part], grads[0][part])
            residual = residual.to(hidden.dtype)
            d_hidden[part] = product(residual, weight.T)
            d_weight += product(residual.T, hidden[part].T)
            if d_bias is not None:
                d_bias += residual.sum(0)
        return d_hidden, d_weight, d_bias, None, None, None
