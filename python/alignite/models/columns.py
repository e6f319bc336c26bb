"""The named columns that an objective asks for, computed from models and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from alignite.errors import UsageError
from alignite.models.head import Head
from alignite.models.routing import hidden_states
from alignite.models.score_head import scaled_scores
from alignite.types import IGNORE, PrepassObjective, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from alignite.types import Objective

SCORED = ("logp", "entropy", "is_top1")
"""Of each scored token."""

OTHERS = ("mean_logit", "score", "step_logits")


def compute_columns(
    models: Mapping[str, nn.Module | Role], batch: Any, wanted: frozenset[str], *, chunk_size: int = 256
) -> dict[str, Tensor]:
    """Columns by name, float32.

    Of each scored token, (scored,) in the flat order of ``labels != IGNORE``: ``ROLE.logp``, the log-probability of a
    label under the model of that role, with a graph when the role is ``policy``; ``ROLE.entropy`` (nats),
    ``ROLE.is_top1`` (0 or 1) and ``ROLE.mean_logit`` (over the vocabulary, where the label is predicted), without one.
    The head runs at scored positions only.

    Of models with a score head: ``ROLE.score``, (replies, heads), read at each reply's last token, with the config's
    gain and offset; and ``ROLE.step_logits``, (scored, classes), read at the tokens that carry a rating.

    What the batch has in ``given`` is taken from there.

    Args:
        models: causal LMs by role, such as ``{"policy": model}``.
        batch: anything with ``input_ids``, ``labels``, ``position_ids`` and ``segments``, as
            :class:`alignite.types.SftBatch`; for scores a :class:`alignite.types.FeedbackBatch`.
        wanted: names of columns.
        chunk_size: positions whose logits exist at a time.

    Raises:
        UsageError: a name is not of the form above, or its role has no model.
    """
    given: Mapping[str, Tensor] = getattr(batch, "given", {})
    columns = dict(given)
    by_role: dict[str, set[str]] = {}
    for name in wanted - given.keys():
        role, _, column = name.partition(".")
        if role not in models or column not in SCORED + OTHERS:
            known = sorted(f"{role}.{column}" for role in models for column in SCORED + OTHERS)
            raise UsageError(f"no column {name!r}", fix=f"columns here: {', '.join(known)}")
        by_role.setdefault(role, set()).add(column)
    for role, names in sorted(by_role.items()):
        model = models[role]
        with ExitStack() as stack:
            if isinstance(model, Role):
                stack.enter_context(model.context())
                model = model.module
            if role != "policy":
                stack.enter_context(torch.no_grad())
            columns |= {f"{role}.{name}": value for name, value in _of_role(model, batch, names, chunk_size).items()}
    return columns


def _of_role(model: nn.Module, batch: Any, names: set[str], chunk_size: int) -> dict[str, Tensor]:
    hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.segments)
    scored = (batch.labels != IGNORE).nonzero()[:, 0]
    columns: dict[str, Tensor] = {}
    if names & {*SCORED, "mean_logit"}:
        before = hidden[_predecessors(batch.segments, scored)]
        head = Head.of(model)
        if names & {*SCORED}:
            output = head.log_probs(before, batch.labels[scored], chunk_size)
            columns |= {name: getattr(output, name) for name in SCORED}
        if "mean_logit" in names:
            columns["mean_logit"] = head.mean_logits(before.detach(), chunk_size)
    if names & {"score", "step_logits"}:
        score = cast("Any", model).score
        if "score" in names:
            ends = batch.segments[batch.replies, 0] + batch.segments[batch.replies, 1] - 1
            columns["score"] = scaled_scores(model, score(hidden[torch.from_numpy(ends).to(hidden.device)]))
        if "step_logits" in names:
            columns["step_logits"] = score(hidden[scored]).float()
    return {name: columns[name] for name in names}


def _predecessors(segments: NDArray[np.int64], scored: Tensor) -> Tensor:
    """The token whose state predicts each of these: the one before, for a reply's first the last of its prompt."""
    children = segments[segments[:, 2] >= 0]
    if not len(children):
        return scored - 1
    parents = segments[children[:, 2]]
    before = np.arange(-1, int(segments[:, 1].sum()) - 1)
    before[children[:, 0]] = parents[:, 0] + parents[:, 1] - 1
    return torch.from_numpy(before).to(scored.device)[scored]


def prepass(
    models: Mapping[str, nn.Module | Role],
    batches: Sequence[Any],
    objective: Objective,
    total: Callable[[dict[str, float]], dict[str, float]],
    *,
    chunk_size: int = 256,
) -> Sequence[Any]:
    """The batches of an update with what the objective's pre-pass found; unchanged when it has none."""
    if not isinstance(objective, PrepassObjective):
        return batches
    with torch.no_grad():
        columns = [
            compute_columns(models, batch.partner or batch, objective.prepass_columns, chunk_size=chunk_size)
            for batch in batches
        ]
        found = objective.prepass(columns, batches, total)
    return [batch.with_given(more) for batch, more in zip(batches, found, strict=True)]
