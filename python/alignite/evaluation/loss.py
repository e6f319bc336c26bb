"""The mean of an objective's terms and metrics over a held-out set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from alignite.data.prepared import split_windows
from alignite.models.columns import compute_columns, prepass
from alignite.types import PrepassObjective, divisor, module_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.data.prepared import PreparedSet
    from alignite.types import Objective, Role


def evaluate_loss(
    models: Mapping[str, nn.Module | Role],
    prepared: PreparedSet,
    objective: Objective,
    *,
    batch_size: int = 8,
    max_tokens: int | None = None,
    chunk_size: int = 256,
    prefix: str = "eval_",
    limit: int | None = None,
    make_batch: Callable[[NDArray[np.int64]], Any] | None = None,
) -> dict[str, float]:
    """``eval_loss`` and the objective's metrics, each the mean over all that it counts in the set.

    For supervised fine-tuning that is the mean over scored tokens, so it does not depend on ``batch_size`` and
    ``max_tokens``, which bound what goes through the model at a time. ``limit`` takes the first windows only. The
    models are used as they are: put them into evaluation mode first. The set is one update for an objective's pre-pass.
    """
    device = next(module_of(models["policy"]).parameters()).device
    sums: dict[str, tuple[float, float, float]] = {}
    metrics: dict[str, tuple[float, float]] = {}
    with torch.no_grad():
        all_windows = np.arange(len(prepared))[:limit]
        tokens = prepared.window_tokens(all_windows)
        parts = split_windows(all_windows, tokens, batch_size, max_tokens)
        batches: Iterable[Any] = map(make_batch or prepared.batch, parts)
        if isinstance(objective, PrepassObjective):
            batches = prepass(models, [batch.to(device) for batch in batches], objective, dict, chunk_size=chunk_size)
        for batch in (batch.to(device) for batch in batches):
            columns = compute_columns(models, batch, objective.columns, chunk_size=chunk_size)
            output = objective.loss(columns, batch)
            for name, term in output.terms.items():
                total, count, _ = sums.get(name, (0.0, 0.0, 0.0))
                sums[name] = (total + float(term.sum), count + term.count, term.weight)
            for name, (total, count) in output.metrics.items():
                before = metrics.get(name, (0.0, 0.0))
                metrics[name] = (before[0] + total, before[1] + count)
    loss = sum(weight * total / divisor(count) for total, count, weight in sums.values())
    # What nothing was counted for has no mean; 0 would look like one.
    found = {name: total / count for name, (total, count) in metrics.items() if count > 0}
    return {f"{prefix}loss": loss} | {f"{prefix}{name}": value for name, value in found.items()}
