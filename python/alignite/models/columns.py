"""The named columns that an objective asks for, computed from models and a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignite.errors import UsageError
from alignite.models.head import Head
from alignite.models.routing import hidden_states
from alignite.types import IGNORE

if TYPE_CHECKING:
    from torch import Tensor, nn

SCORED = ("logp", "entropy", "is_top1")


def compute_columns(
    models: Mapping[str, nn.Module], batch: Any, wanted: frozenset[str], *, chunk_size: int = 256
) -> dict[str, Tensor]:
    """Columns by name, each (scored,) float32 in the flat order of ``labels != IGNORE``.

    ``ROLE.logp`` is the log-probability of a label under the model of that
    role, with a graph; ``ROLE.entropy`` (nats) and ``ROLE.is_top1`` (0 or 1)
    come with it, without one. The head runs at scored positions only.

    Args:
        models: causal LMs by role, such as ``{"policy": model}``.
        batch: anything with ``input_ids``, ``labels``, ``position_ids`` and ``segments``, as
            :class:`alignite.types.SftBatch`.
        wanted: names of columns.
        chunk_size: positions whose logits exist at a time.

    Raises:
        UsageError: a name is not of the form above, or its role has no model.
    """
    columns: dict[str, Tensor] = {}
    by_role: dict[str, set[str]] = {}
    for name in wanted:
        role, _, column = name.partition(".")
        if role not in models or column not in SCORED:
            known = sorted(f"{role}.{column}" for role in models for column in SCORED)
            raise UsageError(f"no column {name!r}", fix=f"columns here: {', '.join(known)}")
        by_role.setdefault(role, set()).add(column)
    for role, names in sorted(by_role.items()):
        model = models[role]
        hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.segments)
        scored = (batch.labels != IGNORE).nonzero()[:, 0]
        # logits at t - 1 predict the label at t; a segment's first label is never scored.
        output = Head.of(model).log_probs(hidden[scored - 1], batch.labels[scored], chunk_size)
        columns |= {f"{role}.{name}": getattr(output, name) for name in names}
    return columns
