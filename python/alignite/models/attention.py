"""Attention over packed segments, plugged into transformers' attention registry.

A training batch is one flat row of segments. Each segment attends causally to
itself only, so the cost is the sum of the squared lengths, not the square of
their sum, and no mask is built. transformers' own packed path builds a dense
(tokens, tokens) mask on the CPU and silently ignores it when a cache exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

NAME = "alignite"


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: NDArray[np.int64] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers' attention modules call.

    Args:
        query: (1, heads, tokens, head_dim); ``key`` and ``value`` may have fewer heads.
        segments: int64 (segments, 3) of (start, length, parent); without it this is transformers' sdpa, which
            generation uses.

    Returns:
        (1, tokens, heads, head_dim), and None for the weights that nobody may ask for.
    """
    extras = [name for name in ("s_aux", "softcap", "position_bias") if kwargs.get(name) is not None]
    if extras:
        raise ValueError(f"attention with {', '.join(extras)} is not what this function computes")
    if segments is None:
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output, _ = sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return output, None
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0:
        return _varlen(query, key, value, segments, scaling), None
    grouped = query.shape[1] != key.shape[1]
    # One split, not a slice a segment: the gradient of a slice is as large as the whole row.
    lengths = segments[:, 1].tolist()
    parts = (torch.split(x, lengths, dim=2) for x in (query, key, value))
    outputs = [
        F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
        ).transpose(1, 2)
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, segments: NDArray[np.int64], scaling: float | None) -> Tensor:
    """One kernel for all segments; torch has it for CUDA in half precision only."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = torch.as_tensor(segments[:, 1], dtype=torch.int32)
    longest = int(lengths.max())
    bounds = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)).to(query.device, non_blocking=True)
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    causal = (-1, 0)
    output = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=causal)
    assert isinstance(output, torch.Tensor)
    return output[None]


def refusal(model: Any) -> str | None:
    """Why this model's attention cannot be routed, as far as its class and config tell; None when it may be tried."""
    if not getattr(model, "_supports_attention_backend", False):
        return "the model's attention is not open to other implementations"
    if not getattr(model, "_supports_sdpa", False):
        return "the model's attention is more than a softmax over products, such as one with sinks"
    if getattr(model.config, "attn_logit_softcapping", None):
        return "the model caps its attention scores"
    return None


def register() -> None:
    """Make the name known to transformers; for calls without segments the masks are sdpa's."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def no_mask(device: torch.device) -> Tensor:
    """What a routed forward passes as attention_mask: transformers hands a 4-D mask on as it is, and we ignore it."""
    return torch.zeros(1, 1, 1, 1, device=device)
