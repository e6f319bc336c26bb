"""Attention over packed segments, plugged into transformers' attention registry.

A training batch is one flat row of segments. Each segment attends causally to
itself and to what it continues, so the cost is the sum of the squared lengths,
not the square of their sum. transformers' own packed path builds a dense
(tokens, tokens) mask on the CPU and silently ignores it when a cache exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

NAME = "alignite"


@dataclass(frozen=True)
class Layout:
    """What the tokens of a flat row attend to, made once for all layers.

    Args:
        lengths: tokens of each segment. ``key_lengths``: of what it attends to, itself at the end.
        keys: int64, the tokens that the segments attend to, one segment's after another's; None when nobody has a
            parent, and each attends to itself.
        masks: bool (length, key length) of each segment that has a parent, True where a token sees a key; else None.
    """

    lengths: list[int]
    key_lengths: list[int]
    keys: Tensor | None
    masks: list[Tensor | None]

    @classmethod
    def of(cls, segments: NDArray[np.int64], device: torch.device) -> Layout:
        """The layout of segments (start, length, parent), int64 (segments, 3); a parent may have a parent."""
        lengths: list[int] = segments[:, 1].tolist()
        if (segments[:, 2] < 0).all():
            return cls(lengths, lengths, None, [None] * len(lengths))
        chains = lineages(segments)
        spans = [np.arange(start, start + length) for start, length, _ in segments.tolist()]
        keys = torch.from_numpy(np.concatenate([spans[index] for chain in chains for index in chain])).to(device)
        key_lengths = [sum(lengths[index] for index in chain) for chain in chains]
        masks: list[Tensor | None] = [
            torch.ones(length, total, dtype=torch.bool, device=device).tril(total - length) if total > length else None
            for length, total in zip(lengths, key_lengths, strict=True)
        ]
        return cls(lengths, key_lengths, keys, masks)


def lineages(segments: NDArray[np.int64]) -> list[list[int]]:
    """Of each segment, what it continues and itself, the first ancestor first."""
    chains: list[list[int]] = []
    for index, parent in enumerate(segments[:, 2].tolist()):
        chains.append([*chains[parent], index] if parent >= 0 else [index])
    return chains


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers' attention modules call.

    Args:
        query: (1, heads, tokens, head_dim); ``key`` and ``value`` may have fewer heads.
        layout: of the flat row; without it this is transformers' sdpa, which generation uses.

    Returns:
        (1, tokens, heads, head_dim), and None for the weights that nobody may ask for.
    """
    extras = [name for name in ("s_aux", "softcap", "position_bias") if kwargs.get(name) is not None]
    if extras:
        raise ValueError(f"attention with {', '.join(extras)} is not what this function computes")
    if layout is None:
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        output, _ = sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
        return output, None
    if layout.keys is not None:
        key, value = (x.index_select(2, layout.keys) for x in (key, value))
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0.0:
        return _varlen(query, key, value, layout, scaling), None
    grouped = query.shape[1] != key.shape[1]
    # One split, not a slice a segment: the gradient of a slice is as large as the whole row.
    queries = torch.split(query, layout.lengths, dim=2)
    keys, values = (torch.split(x, layout.key_lengths, dim=2) for x in (key, value))
    outputs = [
        F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        ).transpose(1, 2)
        for q, k, v, mask in zip(queries, keys, values, layout.masks, strict=True)
    ]
    return torch.cat(outputs, dim=1), None


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """One kernel for all segments; torch has it for CUDA in half precision only.

    Its causal mask ends where queries and keys end, so a segment sees all of what it continues.
    """
    from torch.nn.attention.varlen import varlen_attn

    def bounds(lengths: list[int]) -> Tensor:
        ends = torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return F.pad(ends, (1, 0)).to(query.device, non_blocking=True)

    longest, longest_key = max(layout.lengths), max(layout.key_lengths)
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if groups > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    borders = bounds(layout.lengths), bounds(layout.key_lengths)
    output = varlen_attn(q, k, v, *borders, longest, longest_key, scale=scaling, window_size=(-1, 0))
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
    """Make the name known to transformers; for calls without a layout the masks are sdpa's."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def no_mask(device: torch.device) -> Tensor:
    """What a routed forward passes as attention_mask: transformers hands a 4-D mask on as it is, and we ignore it."""
    return torch.zeros(1, 1, 1, 1, device=device)
