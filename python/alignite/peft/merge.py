"""Adding an adapter's update into the base weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from alignite.errors import AdapterError
from alignite.peft.lora import SavedLinear
from alignite.peft.seat import AdapterModule, Seat, leave_seat, seats, set_active, state_of, weight_of

log = logging.getLogger("alignite")


@dataclass(frozen=True)
class MergeReport:
    """``modules`` that were changed, and ``lost``: the share of the update's norm that rounding took, 0 in float32."""

    modules: int
    lost: float


def merge_adapter(model: nn.Module, name: str = "default") -> MergeReport:
    """Add the adapter into the base weights and take it off its seats.

    The sum is made in float32 (float64 for such a base) and rounded once. On a bfloat16 base a small update
    drowns in that rounding; the report says how much of it did.

    Raises:
        AdapterError: no such adapter, or one that is not an update of a weight.
    """
    found = seats(model, name)
    deltas: dict[str, torch.Tensor] = {}
    copies: dict[str, SavedLinear] = {}
    for path, module in found.items():
        adapter = cast("AdapterModule", cast("Seat", module).adapters[name])
        if isinstance(adapter, SavedLinear):
            copies[path] = adapter
            continue
        delta = adapter.weight_delta()
        if delta is None:
            raise AdapterError(f"adapter {name!r} is not an update of a weight", where=path, fix="keep it apart")
        deltas[path] = delta
    lost = total = 0.0
    with torch.no_grad():
        for path, copy in copies.items():
            # The copy itself, not base + (copy - base), which rounding would make another; its bias with it.
            module = found.pop(path)
            weight_of(module).copy_(copy.weight)
            if copy.bias is not None:
                cast("torch.Tensor", module.bias).copy_(copy.bias)
            leave_seat(module, name)
        for path, module in found.items():
            weight, delta = weight_of(module), deltas[path].detach()
            wanted = weight.to(torch.promote_types(weight.dtype, torch.float32)) + delta
            weight.copy_(wanted)
            if weight.dtype not in (torch.float32, torch.float64):
                lost += float((weight.float() - wanted).square().sum())
            total += float(delta.square().sum())
            leave_seat(module, name)
    set_active(model, (active for active in state_of(model).active if active != name))
    share = (lost / total) ** 0.5 if total else 0.0
    if share > 0.01:
        log.warning("merging lost %.0f%% of the update to rounding; merge into a float32 model instead", 100 * share)
    return MergeReport(len(found) + len(copies), share)
