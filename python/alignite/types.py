"""The protocols and plain types that two or more rooms share.

Nothing here imports torch when it is loaded: ``alignite.data`` must work
without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from alignite.errors import DataError

NO_PARENT = -1
"""The ``parent`` of a segment that shares its prompt with no other."""

IGNORE = -100
"""The label of a token that no loss looks at."""

CRITERION = "criterion"
"""The column of a :class:`FeedbackBatch`'s ``given``, int64 (records,), what a record is about; -1 for nothing."""


class Batch(Protocol):
    """What every batch offers to a model: one flat row of segments, no padding.

    ``segments`` is an int64 array of shape (segments, 3) on the CPU whose rows
    are (start, length, parent). A segment attends to itself, causally, and to
    its parent, the index of a shared prompt or ``NO_PARENT``. Positions
    restart at the start of a segment, or at the parent's length.
    """

    @property
    def input_ids(self) -> Tensor: ...
    @property
    def position_ids(self) -> Tensor: ...
    @property
    def segments(self) -> NDArray[np.int64]: ...
    @property
    def num_tokens(self) -> int: ...


@dataclass(frozen=True)
class SftBatch:
    """Packed conversations.

    Args:
        input_ids: int64 (tokens,).
        labels: int64 (tokens,), aligned with ``input_ids``; ``IGNORE`` where a
            token is not scored, and always at a segment's first token.
        position_ids: int64 (tokens,).
        segments: int64 (segments, 3), see :class:`Batch`.
        num_windows: how many packed windows the segments came from.
        weights: float32 (tokens,), how much each token counts; None when all count 1.
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    segments: NDArray[np.int64]
    num_windows: int
    weights: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    def to(self, device: torch.device | str) -> SftBatch:
        """The same batch with its tensors on ``device``; ``segments`` stays on the CPU."""
        return SftBatch(
            self.input_ids.to(device),
            self.labels.to(device),
            self.position_ids.to(device),
            self.segments,
            self.num_windows,
            None if self.weights is None else self.weights.to(device),
        )


class ReplyRole(IntEnum):
    """What a segment of a :class:`FeedbackBatch` is in its record, by its number in prepared files."""

    WHOLE = 0
    PROMPT = 1
    CHOSEN = 2
    REJECTED = 3
    REPLY = 4
    STEPS = 5


@dataclass(frozen=True)
class FeedbackBatch:
    """Records that compare, rank or rate replies: pairs, rankings, labelled replies, rated steps.

    The replies of a record share their prompt, which is one segment that they continue. A reply is a segment with
    scored tokens; below, ``replies`` counts them in the order in which they stand.

    Args:
        input_ids, labels, position_ids, weights: as in :class:`SftBatch`. In rated solutions a label is a step's
            rating, -1, 0 or 1, at the step's last token.
        segments: int64 (segments, 3), see :class:`Batch`.
        replies: int64 (replies,), which segments are replies.
        records: int64 (replies,), the record of each reply, from 0; the replies of a record follow each other.
        roles: int64 (replies,), a :class:`ReplyRole` each.
        scores: float32 (replies,): a reply's score, a label as 1 or 0, a chosen reply's margin, a rejected reply's
            probability that the chosen one is better; NaN when there is none.
        reply_of: int64 (scored,), the reply of each scored token, in the order of ``labels != IGNORE``.
        num_records: how many records there are.
        given: columns that are known before the forward pass, by their names.
        record_weights: float32 (records,), how much each record's loss counts, where pairs and rankings say so; None
            when all count 1.
        places: ``file:line`` of each record, for those that read errors; empty where it is not known.
        partner: each record's prompt with the reply of the next record of the update, where an objective's pre-pass
            looks at that (KTO).
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    segments: NDArray[np.int64]
    replies: NDArray[np.int64]
    records: NDArray[np.int64]
    roles: NDArray[np.int64]
    scores: NDArray[np.float32]
    reply_of: Tensor
    num_records: int
    weights: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    record_weights: NDArray[np.float32] | None = None
    places: Sequence[str] = ()
    partner: FeedbackBatch | None = None

    @property
    def num_tokens(self) -> int:
        return int(self.input_ids.numel())

    @property
    def num_replies(self) -> int:
        return len(self.replies)

    def to(self, device: torch.device | str) -> FeedbackBatch:
        """The same batch with its tensors on ``device``; numpy arrays stay on the CPU."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            labels=self.labels.to(device),
            position_ids=self.position_ids.to(device),
            reply_of=self.reply_of.to(device),
            weights=None if self.weights is None else self.weights.to(device),
            given={name: column.to(device) for name, column in self.given.items()},
            partner=None if self.partner is None else self.partner.to(device),
        )

    def place(self, record: int) -> str:
        """Where a record comes from, or its number in the batch."""
        return self.places[record] if self.places else f"record {record} of the batch"

    def with_given(self, columns: Mapping[str, Tensor]) -> FeedbackBatch:
        """The same batch with more columns that are known."""
        return replace(self, given={**self.given, **columns})


@dataclass(frozen=True)
class Role:
    """A model in a role, and the context that its forward passes run in, such as its adapters being off."""

    module: nn.Module
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


def module_of(model: nn.Module | Role) -> nn.Module:
    """The model of a role."""
    return model.module if isinstance(model, Role) else model


class Scorer(Protocol):
    """What scores replies by their text: a reward model here or behind HTTP, or several combined.

    ``score`` gives float64 (replies,), or (replies, heads) from a model with several heads; higher is better. Prompts
    and completions are texts, or lists of messages where the scorer takes them.
    """

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]: ...


@dataclass(frozen=True)
class Term:
    """One term of a loss over one micro-batch.

    ``sum`` is a scalar with a graph, ``count`` what it was summed over. The
    loop divides by the count of the whole update, over micro-batches and
    ranks, and multiplies by ``weight``.
    """

    sum: Tensor
    count: float
    weight: float = 1.0


def divisor(count: float) -> float:
    """What a term's sum is divided by: its count, which weights may make less than 1; 1 where there is nothing."""
    return count if count > 0 else 1.0


@dataclass
class LossOutput:
    """Terms by name, and metrics by name as (sum, count) to be averaged over an update."""

    terms: dict[str, Term]
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A training objective: named columns in, loss terms and metrics out.

    It knows no model, adapter or file. ``columns`` names what it needs, such
    as ``policy.logp``; models/ computes them. ``counts`` must equal the counts
    of the terms that ``loss`` returns, and needs no forward pass.
    """

    @property
    def columns(self) -> frozenset[str]: ...
    def counts(self, batch: Any) -> dict[str, float]: ...
    def loss(self, columns: Mapping[str, Tensor], batch: Any) -> LossOutput: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class PrepassObjective(Objective, Protocol):
    """An objective some of whose numbers depend on a forward pass, or couple rows, over a whole update.

    Before an update's gradients, ``prepass_columns`` are computed without gradients of every micro-batch, or of its
    ``partner`` when it has one, and ``prepass`` makes of them columns that join ``given`` of each. ``counts`` and
    ``loss`` come after, so they may read them. ``total`` sums numbers over ranks; every rank calls it as often.
    """

    @property
    def prepass_columns(self) -> frozenset[str]: ...
    def prepass(
        self,
        columns: Sequence[Mapping[str, Tensor]],
        batches: Sequence[FeedbackBatch],
        total: Callable[[dict[str, float]], dict[str, float]],
    ) -> Sequence[Mapping[str, Tensor]]: ...


@runtime_checkable
class RowMaker(Objective, Protocol):
    """An objective that learns from rows which it makes of rows of feedback.

    ``takes`` is the format that it makes them of, by its name in ``alignite convert --to``; empty where the data hold
    them made. ``makes`` is the kind of their records. ``rows`` gives them one by one; what it is given may be gone
    through several times, and a row that cannot be used is told to ``bad``, which may raise it.
    """

    @property
    def takes(self) -> str: ...
    @property
    def makes(self) -> str: ...
    def rows(self, rows: Iterable[Mapping[str, Any]], bad: Callable[[DataError], None]) -> Iterator[dict[str, Any]]: ...


@dataclass(frozen=True)
class Update:
    """The micro-batches of one optimizer step on this rank.

    ``epoch`` is the fraction of epochs done once the update is applied;
    ``num_tokens`` counts the input tokens of all ranks.
    """

    batches: Sequence[Any]
    epoch: float
    num_tokens: int


class UpdateSource(Protocol):
    """Where updates come from: a prepared set, or rollouts made on the way."""

    @property
    def num_updates(self) -> int | None: ...
    def next_update(self) -> Update | None: ...
    def after_update(self, metrics: Mapping[str, float]) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class RunState:
    """A run as its callbacks see it.

    Args:
        run_dir: the run's folder.
        config: the configuration as a checkpoint keeps it.
        num_updates: updates in all; None when that is not known.
        step: updates applied so far; at the start, those of the checkpoint that the run goes on from.
        metrics: the last value of each metric.
        outcome: how the run ended: ``finished``, ``stopped``, ``preempted`` or ``failed``; empty while it runs.
        reason: why it stopped or failed.
    """

    run_dir: Path
    config: Mapping[str, Any]
    num_updates: int | None
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    outcome: str = ""
    reason: str = ""

    def request_stop(self, reason: str) -> None:
        """End the run after this update, with a checkpoint; the same command again would go on."""
        self.reason = self.reason or reason or "a callback asked to stop"


class Callback:
    """What watches a run. Subclass it and write the methods that you need; each does nothing by default.

    Callbacks live on rank 0 and are called between updates, in the order in which they were given. What one raises
    ends the run.
    """

    def on_train_begin(self, run: RunState) -> None:
        """Before the first update."""

    def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
        """A line of training metrics, as metrics.jsonl has it, every ``logging_steps`` updates."""

    def on_evaluate(self, run: RunState, metrics: Mapping[str, float]) -> None:
        """Metrics on held-out data."""

    def on_save(self, run: RunState, folder: Path) -> None:
        """A checkpoint is on disk, whole."""

    def on_train_end(self, run: RunState) -> None:
        """After the last update, or when the run ends otherwise: see ``run.outcome``."""


class LowRank(NamedTuple):
    """An additive update of a linear's weight: ``scale * b @ a``.

    ``a`` is (rank, in), ``b`` is (out, rank); ``dropout`` is the probability
    that is in force now, 0.0 in evaluation.
    """

    a: Tensor
    b: Tensor
    scale: float
    dropout: float


class Adapter(Protocol):
    """One adapter on one seated module; each method is a no-op by default."""

    def pre(self, x: Tensor) -> Tensor: ...
    def post(self, x: Tensor, y: Tensor) -> Tensor: ...
    def weight_delta(self) -> Tensor | None: ...
    def low_rank(self) -> LowRank | None: ...


@runtime_checkable
class SeatedLinear(Protocol):
    """A linear in a seat, as models/ sees it when it fuses several linears.

    ``low_rank_updates`` lists the active updates when every active adapter is
    one, and is None when some adapter must be called through the module.
    """

    def low_rank_updates(self) -> tuple[LowRank, ...] | None: ...
