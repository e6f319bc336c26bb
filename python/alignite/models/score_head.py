"""A linear head on the last hidden states: scores of whole replies, or classes of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from alignite.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

GAIN, OFFSET = "score_gain", "score_offset"
"""Fields of config.json, a number a head each: score = gain * raw + offset."""


class ScoreHead(nn.Linear):
    """Raw scores (..., heads) of hidden states (..., hidden), in the head's own dtype, float32, whatever the body's."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


def attach_score_head(model: nn.Module, heads: int = 1, *, seed: int = 0) -> ScoreHead:
    """Give a causal LM a score head, ``model.score``, beside its vocabulary head; no weight of the model changes.

    The head has no bias, is float32, and starts from N(0, 1/sqrt(d+1)) with the hidden size d, after
    summarize_from_feedback (arXiv 2009.01325). It depends on the seed alone; torch's random state stays as it was.

    Raises:
        UsageError: ``heads`` is below 1. ModelError: the model is no causal LM, or has a score head already.
    """
    if heads < 1:
        raise UsageError(f"there are {heads} heads", fix="give 1 or more")
    if getattr(model, "score", None) is not None:
        raise ModelError(
            f"{type(model).__name__} has a score head already", fix="use it, or load the model without one"
        )
    vocabulary = cast("Any", model).get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if vocabulary is None:
        raise ModelError(
            f"{type(model).__name__} has no vocabulary head", fix="give a causal LM, as load_model returns it"
        )
    hidden = vocabulary.weight.shape[1]
    with torch.device("meta"):
        head = ScoreHead(hidden, heads, bias=False)
    weight = torch.empty(heads, hidden)
    weight.normal_(0.0, 1.0 / math.sqrt(hidden + 1), generator=torch.Generator().manual_seed(seed))
    head.weight = nn.Parameter(weight.to(vocabulary.weight.device))
    seat_head(model, head)
    return head


def seat_head(model: nn.Module, head: ScoreHead) -> None:
    """Make this the model's score head, in the mode that the model is in."""
    head.train(model.training)
    cast("Any", model).score = head
    cast("Any", model).config.num_labels = head.out_features


def score_scale(model: nn.Module) -> tuple[list[float], list[float]]:
    """Gain and offset of each head, 1 and 0 where the config says nothing.

    OpenRLHF's ``mean`` and ``std`` are read as gain 1 / std and offset -mean / std, unless the config says
    ``normalize_reward: false``.

    Raises:
        ModelError: the config holds something else than a finite number for each head.
    """
    config: Any = model.config
    heads = cast("Any", model).score.out_features
    gain, offset = getattr(config, GAIN, None), getattr(config, OFFSET, None)
    mean, std = getattr(config, "mean", None), getattr(config, "std", None)
    if gain is None and offset is None and mean is not None and std is not None:
        if getattr(config, "normalize_reward", True) is False:
            return [1.0] * heads, [0.0] * heads
        if not _numbers([mean, std], 2) or std <= 0:
            raise _bad_scale(config, f"mean is {mean!r} and std {std!r}")
        return [1.0 / std] * heads, [-mean / std] * heads
    gain = [1.0] * heads if gain is None else gain
    offset = [0.0] * heads if offset is None else offset
    if not _numbers(gain, heads) or not _numbers(offset, heads):
        raise _bad_scale(config, f"{GAIN} is {gain!r} and {OFFSET} {offset!r}")
    return [float(value) for value in gain], [float(value) for value in offset]


def set_score_scale(model: nn.Module, gain: Sequence[float], offset: Sequence[float]) -> None:
    """Write gain and offset into the model's config, in the place of any mean and std.

    Raises:
        UsageError: they are not a finite number for each head.
    """
    heads = cast("Any", model).score.out_features
    if not _numbers(list(gain), heads) or not _numbers(list(offset), heads):
        raise UsageError(
            f"gain is {list(gain)} and offset {list(offset)}", fix=f"give {heads} finite numbers of each, one a head"
        )
    config: Any = model.config
    setattr(config, GAIN, [float(value) for value in gain])
    setattr(config, OFFSET, [float(value) for value in offset])
    for name in ("mean", "std", "normalize_reward"):
        if hasattr(config, name):
            delattr(config, name)


def scaled_scores(model: nn.Module, raw: Tensor) -> Tensor:
    """gain * raw + offset, float32 (..., heads)."""
    gain, offset = score_scale(model)
    raw = raw.float()
    if all(value == 1.0 for value in gain) and not any(offset):
        return raw
    return raw * raw.new_tensor(gain) + raw.new_tensor(offset)


def _numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _bad_scale(config: Any, why: str) -> ModelError:
    return ModelError(
        "the config's scale of the scores cannot be used",
        where=getattr(config, "_name_or_path", None) or None,
        why=why,
        fix=f"{GAIN} and {OFFSET} are lists of a finite number a head",
    )
