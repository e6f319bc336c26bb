"""What is summed over the whole vocabulary at each position, with a gradient, without keeping logits.

With z a position's logits, p = softmax(z) the policy's distribution and q the reference's, the sums and their gradients
by z are

    KL(p || q) = sum p (log p - log q)      p (log p - log q - KL)
    KL(q || p) = sum q (log q - log p)      p - q
    H(p)       = -sum p log p               -p (log p + H)
    mean log p = sum log p / V              1 / V - p

Both passes go over the positions in chunks, and backward computes each chunk's logits again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignite.errors import ModelError
from alignite.models.head import Head
from alignite.models.linear import product


class VocabularySums(NamedTuple):
    """Each (n,), float32 or float64 as the logits are, with a graph; in nats. The first two are 0 without a reference.

    ``kl`` is KL(policy || reference), ``forward_kl`` KL(reference || policy), ``entropy`` the policy's, and
    ``mean_logp`` its mean log-probability of all tokens of the vocabulary.
    """

    kl: Tensor
    forward_kl: Tensor
    entropy: Tensor
    mean_logp: Tensor


def vocabulary_sums(
    head: Head, hidden: Tensor, chunk_size: int, reference: tuple[Head, Tensor] | None = None
) -> VocabularySums:
    """The sums at each position.

    Args:
        head, hidden: the policy's head and its states, (n, hidden).
        chunk_size: how many positions have their logits in memory at a time.
        reference: the reference's head and its states at the same positions, (n, its hidden); no gradient goes there.

    Raises:
        ModelError: the reference has another vocabulary.
    """
    if reference is not None and len(reference[0].weight) != len(head.weight):
        raise ModelError(
            f"the reference's head has {len(reference[0].weight)} tokens and the policy's {len(head.weight)}",
            why="a divergence over the vocabulary compares the same tokens",
            fix="give a reference with the policy's vocabulary",
        )
    # Equal chunks: a short one at the end would read the whole weight for a few rows.
    chunk_size = math.ceil(len(hidden) / max(math.ceil(len(hidden) / chunk_size), 1)) or 1
    found = _Sums.apply(hidden, head.weight, head.bias, head, reference, chunk_size)
    return VocabularySums(*found)


def _log_softmax(head: Head, hidden: Tensor) -> Tensor:
    logits = head.logits(hidden)
    return logits.sub_(logits.logsumexp(-1, keepdim=True))


def _sums(logp: Tensor, logq: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a chunk's log-probabilities, (rows, vocabulary): kl, forward_kl, entropy, mean_logp."""
    p = logp.exp()
    zero = logp.new_zeros(len(logp))
    kl = forward = zero
    if logq is not None:
        kl = torch.linalg.vecdot(p, logp - logq)
        forward = torch.linalg.vecdot(logq.exp(), logq - logp)
    return kl, forward, -torch.linalg.vecdot(p, logp), logp.mean(-1)


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        reference: tuple[Head, Tensor] | None,
        chunk_size: int,
    ) -> tuple[Tensor, ...]:
        parts = []
        for start in range(0, max(len(hidden), 1), chunk_size):  # once for no position, which gives the dtype
            part = slice(start, start + chunk_size)
            logq = None if reference is None else _log_softmax(reference[0], reference[1][part])
            parts.append(_sums(_log_softmax(head, hidden[part]), logq))
        ctx.save_for_backward(hidden, weight, bias)
        ctx.scale, ctx.softcap, ctx.reference, ctx.chunk_size = head.scale, head.softcap, reference, chunk_size
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        head = Head(weight, bias, ctx.scale, ctx.softcap)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = torch.zeros_like(bias) if wants_bias else None
        for start in range(0, len(hidden), ctx.chunk_size):
            part = slice(start, start + ctx.chunk_size)
            logits = head.logits(hidden[part])
            slope = None if head.softcap is None else 1.0 - (logits / head.softcap).square()
            logp = logits.sub_(logits.logsumexp(-1, keepdim=True))
            logq = None if ctx.reference is None else _log_softmax(ctx.reference[0], ctx.reference[1][part])
            residual = _slopes(logp, logq, [grad[part] for grad in grads])
            residual = residual.mul_(head.scale) if slope is None else residual.mul_(slope).mul_(head.scale)
            residual = residual.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[part] = product(residual, weight.T)
            if d_weight is not None:
                d_weight += product(residual.T, hidden[part].T)
            if d_bias is not None:
                d_bias += residual.sum(0)
        return d_hidden, d_weight, d_bias, None, None, None


def _slopes(logp: Tensor, logq: Tensor | None, grads: list[Tensor]) -> Tensor:
    """The gradient by a chunk's logits, (rows, vocabulary), from those of its four sums."""
    kl, _, entropy, _ = (column[:, None] for column in _sums(logp, logq))
    d_kl, d_forward, d_entropy, d_mean = (grad[:, None] for grad in grads)
    p = logp.exp()
    # All that multiplies p, then what stands alone.
    factor = -d_entropy * (logp + entropy) - d_mean
    if logq is not None:
        factor += d_kl * (logp - logq - kl) + d_forward
    slopes = p.mul_(factor).add_(d_mean / logp.shape[1])
    return slopes if logq is None else slopes.sub_(d_forward * logq.exp())
