"""Hidden states of a flat batch, exactly: routed where the model allows it, padded where it does not.

Whether a model's attention can be routed is tried, not looked up: once a
model, two short segments go through the flat path and one by one, and the
results must agree. A model that mixes segments in some other layer (state
spaces, convolutions, an attention of its own) fails that and is padded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from alignite.errors import ModelError
from alignite.models import attention
from alignite.models.head import Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("alignite")

_PROBE_LENGTHS = (5, 7)


@dataclass(frozen=True)
class Route:
    """How a model sees a batch.

    ``window`` is the longest segment that a routed forward may hold; ``together``, the longest that may share a
    forward with others at all, because above it the model's rotary positions depend on the longest of them.
    """

    routed: bool
    reason: str = ""
    window: int | None = None
    together: int | None = None


_routes: WeakKeyDictionary[nn.Module, Route] = WeakKeyDictionary()


def hidden_states(model: nn.Module, input_ids: Tensor, position_ids: Tensor, segments: NDArray[np.int64]) -> Tensor:
    """Last hidden states of a flat row of segments.

    Args:
        model: a transformers causal LM.
        input_ids: int64 (tokens,). ``position_ids``: int64 (tokens,).
        segments: int64 (segments, 3), see :class:`alignite.types.Batch`.

    Returns:
        (tokens, hidden), in the order of ``input_ids``.

    Raises:
        ModelError: a segment is longer than the model has positions for; see also :func:`route_of`.
    """
    route = route_of(model)
    longest = max(whole_lengths(segments))
    check_length(model, longest)
    if route.together is not None and longest > route.together:
        _log_once(model, f"positions of segments over {route.together} tokens are rescaled, so each runs alone")
        return torch.cat([_padded(model, input_ids, position_ids, segments, [i]) for i in range(len(segments))])
    if route.routed and (route.window is None or longest <= route.window):
        return _routed(model, input_ids, position_ids, segments)
    if route.routed:
        _log_once(model, f"segments of {longest} tokens exceed the model's attention window of {route.window}")
    return _padded(model, input_ids, position_ids, segments)


def route_of(model: nn.Module) -> Route:
    """The route of this model, decided at the first call.

    Raises:
        ModelError: our head does not give the model's own logits, so that log-probabilities would be wrong.
    """
    route = _routes.get(model)
    if route is not None and route.routed and cast("Any", model).config._attn_implementation != attention.NAME:
        route = None  # somebody has changed it since
    if route is None:
        route = _decide(model)
        _routes[model] = route
        if not route.routed:
            _log_once(model, route.reason)
    return route


def check_length(model: nn.Module, longest: int) -> None:
    """Refuse segments that the model has no positions for; rotary positions that scale go further.

    Raises:
        ModelError: says how many there are.
    """
    config: Any = cast("Any", model).config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if isinstance(limit, int) and 0 < limit < longest and _rope_type(config) == "default":
        raise ModelError(
            f"a row has {longest} tokens and the model has {limit} positions",
            where=getattr(config, "_name_or_path", None) or None,
            fix=f"set max_length to {limit} or less",
        )


def _rope_type(config: Any) -> str:
    for name in ("rope_parameters", "rope_scaling"):
        values = getattr(config, name, None)
        if isinstance(values, dict):
            return str(values.get("rope_type") or values.get("type") or "default")
    return "default"


def _log_once(model: nn.Module, reason: str) -> None:
    if not getattr(model, "_alignite_padding_logged", False):
        object.__setattr__(model, "_alignite_padding_logged", True)
        log.warning("%s: segments are padded, which is slower (%s)", type(model).__name__, reason)


def _body(model: nn.Module) -> nn.Module:
    inner: Any = model
    body = inner.base_model if inner.base_model is not model else inner.get_decoder()
    return cast("nn.Module", body)


def whole_lengths(segments: NDArray[np.int64]) -> list[int]:
    """Tokens of each segment with all that it continues."""
    lengths: list[int] = segments[:, 1].tolist()
    return [sum(lengths[index] for index in chain) for chain in attention.lineages(segments)]


def _routed(model: nn.Module, input_ids: Tensor, position_ids: Tensor, segments: NDArray[np.int64]) -> Tensor:
    output = _body(model)(
        input_ids=input_ids[None],
        position_ids=position_ids[None],
        attention_mask=attention.no_mask(input_ids.device),
        layout=attention.Layout.of(segments, input_ids.device),
        use_cache=False,
    )
    return cast("Tensor", output.last_hidden_state[0])


def _padded(
    model: nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    segments: NDArray[np.int64],
    only: Sequence[int] | None = None,
) -> Tensor:
    """Each segment behind all that it continues, a row each; the states of the segment's own tokens."""
    chosen = range(len(segments)) if only is None else only
    chains = [attention.lineages(segments)[index] for index in chosen]
    spans = [torch.arange(start, start + length) for start, length, _ in segments.tolist()]
    rows = [torch.cat([spans[index] for index in chain]) for chain in chains]
    # Padding repeats the row's last token: any id inside the vocabulary will do behind the mask.
    longest = max(len(row) for row in rows)
    index = torch.stack([torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows]).to(input_ids.device)
    ends = torch.tensor([len(row) for row in rows], device=input_ids.device)[:, None]
    starts = ends - torch.tensor([len(spans[chain[-1]]) for chain in chains], device=input_ids.device)[:, None]
    columns = torch.arange(longest, device=input_ids.device)
    mask = columns < ends
    inputs: dict[str, Any] = {"input_ids": input_ids[index], "attention_mask": mask.long(), "use_cache": False}
    if getattr(model.config, "model_type", "") != "bloom":  # ALiBi reads the mask and takes no positions
        inputs["position_ids"] = position_ids[index]
    return cast("Tensor", _body(model)(**inputs).last_hidden_state[mask & (columns >= starts)])


def _decide(model: nn.Module) -> Route:
    config: Any = model.config
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _probe(model, config)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be run as alignite runs a causal LM",
            where=getattr(config, "_name_or_path", None) or None,
            why=f"{type(error).__name__}: {error}",
            fix="report the model's type",
        ) from error
    finally:
        model.train(training)


def _probe(model: nn.Module, config: Any) -> Route:
    device = next(model.parameters()).device
    total = sum(_PROBE_LENGTHS)
    ids = (torch.arange(total, device=device) * 7919 + 11) % config.get_text_config().vocab_size
    positions = torch.cat([torch.arange(length, device=device) for length in _PROBE_LENGTHS])
    starts = np.cumsum([0, *_PROBE_LENGTHS[:-1]])
    segments = np.stack([starts, _PROBE_LENGTHS, np.full(len(starts), -1)], axis=1).astype(np.int64)

    alone, own_logits = [], []
    for start, length, _ in segments.tolist():
        part = ids[None, start : start + length]
        alone.append(_body(model)(input_ids=part, use_cache=False).last_hidden_state[0])
        own_logits.append(cast("Any", model(input_ids=part, use_cache=False)).logits[0])
    expected = torch.cat(alone)
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.05
    if not _close(Head.of(model).logits(expected), torch.cat(own_logits), tolerance):
        raise ModelError(
            f"{type(model).__name__} computes its logits in a way that alignite does not reproduce",
            where=getattr(config, "_name_or_path", None) or None,
            why="its head is more than a linear layer with a scale, a bias and a soft cap",
            fix="report the model's type; training it here would give wrong log-probabilities",
        )
    text = config.get_text_config()
    original = getattr(text, "original_max_position_embeddings", None) or getattr(text, "max_position_embeddings", None)
    together = original if _rope_type(text) in ("dynamic", "longrope") else None
    reason = _why_not_routed(model, ids, positions, segments, expected, tolerance)
    if reason is None:
        return Route(True, window=_window(text), together=together)
    if not _close(_padded(model, ids, positions, segments), expected, tolerance):
        raise ModelError(
            f"{type(model).__name__} sees other segments of its batch, padded or not",
            where=getattr(config, "_name_or_path", None) or None,
            why=reason,
            fix="report the model's type; training it here would give wrong log-probabilities",
        )
    return Route(False, reason, together=together)


def _why_not_routed(
    model: nn.Module,
    ids: Tensor,
    positions: Tensor,
    segments: NDArray[np.int64],
    expected: Tensor,
    tolerance: float,
) -> str | None:
    refusal = attention.refusal(model)
    if refusal is not None:
        return refusal
    used = cast("Any", model).config._attn_implementation
    if used != attention.NAME:
        return f"attn_implementation is {used!r}, not {attention.NAME!r}"
    try:
        flat = _routed(model, ids, positions, segments)
        # In half precision a small leak hides in the rounding of other shapes; the same shapes round the same.
        first = _PROBE_LENGTHS[0]
        others = torch.cat([ids[:first].flip(0), ids[first:]])
        again = _routed(model, others, positions, segments)
    except (TypeError, ValueError, RuntimeError) as error:
        return f"a flat batch fails: {error}"
    if not _close(flat, expected, tolerance) or not _close(again[first:], flat[first:], tolerance / 25):
        return "a flat batch gives other hidden states than its segments alone"
    return None


def _window(text: Any) -> int | None:
    """The shortest reach of any layer; a segment within it is attended to whole."""
    sliding = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    reaches = (sliding, getattr(text, "attention_chunk_size", None), getattr(text, "index_topk", None))
    return min((reach for reach in reaches if isinstance(reach, int) and reach > 0), default=None)


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    theirs = theirs.float()
    return bool((ours.float() - theirs).norm() <= tolerance * theirs.norm().clamp(min=1e-6))
