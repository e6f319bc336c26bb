"""The named columns that an objective asks for, computed from models and a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from alignite.errors import UsageError
from alignite.models.head import Head
from alignite.models.routing import hidden_states
from alignite.models.score_head import scaled_scores
from alignite.models.whole_vocabulary import vocabulary_sums
from alignite.types import IGNORE, PrepassObjective, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from alignite.types import Objective

SCORED = ("logp", "entropy", "is_top1")
"""Of each scored token."""

VOCABULARY = {"kl": "kl", "forward_kl": "forward_kl", "graphed_entropy": "entropy", "mean_logp": "mean_logp"}
"""Of each scored token, over the whole vocabulary with a graph: the field of the sums that holds it."""

AGAINST = frozenset({"policy.kl", "policy.forward_kl"})
"""Columns of the policy that need the reference's own distribution, not only its log-probability of a token."""

OTHERS = ("mean_logit", "log_sum_sq_probs", "score", "step_logits", *VOCABULARY)


def compute_columns(
    models: Mapping[str, nn.Module | Role], batch: Any, wanted: frozenset[str], *, chunk_size: int = 256
) -> dict[str, Tensor]:
    """Columns by name, float32.

    Of each scored token, (scored,) in the flat order of ``labels != IGNORE``: ``ROLE.logp``, the log-probability of a
    label under the model of that role, with a graph when the role is ``policy``; ``ROLE.entropy`` (nats),
    ``ROLE.is_top1`` (0 or 1) and, over the vocabulary where the label is predicted, ``ROLE.mean_logit`` and
    ``ROLE.log_sum_sq_probs``, the log of the sum of squared probabilities, without one.
    The head runs at scored positions only. Over the whole vocabulary, with a graph: ``policy.kl``, KL(policy ||
    reference), and ``policy.forward_kl``, KL(reference || policy), in nats, which run the reference, too;
    ``ROLE.graphed_entropy`` and ``ROLE.mean_logp``, the mean of all tokens' log-probabilities.

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
        UsageError: a name is not of the form above, or its role has no model; or a divergence is asked for and there is
            no reference model.
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
    compares = bool(AGAINST & (wanted - given.keys()))
    if compares:
        if "reference" not in models:
            raise UsageError(
                "a divergence over the vocabulary is asked for, and there is no reference model",
                why="log-probabilities that were computed before are of single tokens",
                fix="give the reference model",
            )
        by_role.setdefault("reference", set())
    reference: tuple[Head, Tensor] | None = None
    # The reference comes first: the policy's divergences look at its states.
    for role, names in sorted(by_role.items(), reverse=True):
        model = models[role]
        with ExitStack() as stack:
            if isinstance(model, Role):
                stack.enter_context(model.context())
                model = model.module
            if role != "policy":
                stack.enter_context(torch.no_grad())
            states = _States(model, batch)
            found = _of_role(states, batch, names, chunk_size, reference if role == "policy" else None)
            columns |= {f"{role}.{name}": value for name, value in found.items()}
            if role == "reference" and compares:
                reference = states.before
    return columns


class _States:
    """What a model makes of a batch: its states, and at scored positions its head and the states before them."""

    def __init__(self, model: nn.Module, batch: Any) -> None:
        self.model = model
        self.hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.segments)
        self.scored = (batch.labels != IGNORE).nonzero()[:, 0]
        self._segments = batch.segments

    @cached_property
    def before(self) -> tuple[Head, Tensor]:
        return Head.of(self.model), self.hidden[_predecessors(self._segments, self.scored)]


def _of_role(
    states: _States, batch: Any, names: set[str], chunk_size: int, reference: tuple[Head, Tensor] | None
) -> dict[str, Tensor]:
    model, hidden, scored = states.model, states.hidden, states.scored
    columns: dict[str, Tensor] = {}
    if names & {*SCORED, "mean_logit", "log_sum_sq_probs", *VOCABULARY}:
        head, before = states.before
        if names & {*SCORED}:
            output = head.log_probs(before, batch.labels[scored], chunk_size)
            columns |= {name: getattr(output, name) for name in SCORED}
        if "mean_logit" in names:
            columns["mean_logit"] = head.mean_logits(before.detach(), chunk_size)
        if "log_sum_sq_probs" in names:
            columns["log_sum_sq_probs"] = head.log_sum_sq_probs(before.detach(), chunk_size)
        if names & VOCABULARY.keys():
            sums = vocabulary_sums(head, before, chunk_size, reference)
            columns |= {name: getattr(sums, field) for name, field in VOCABULARY.items()}
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
