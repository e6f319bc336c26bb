"""Hindsight relabelling: scored replies become examples of what they did, in groups that are contrasted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from alignite.config.options import check_bound, check_finite
from alignite.errors import ConfigError, DataError, UsageError
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.odd_rows import TIES, USUAL
from alignite.objectives.rows import plain, ranked, usable, with_marker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class HindsightRelabel:
    """Turns scored replies into examples of the instruction that they do follow.

    Args:
        good, bad: what to ask for; put before the prompt's text, or that of its last user message.
        threshold: the least score of a good reply.
        separator: between the instruction and the prompt.

    Source: HIR (arXiv 2302.05206, section 3.2): p* = phi(p, q, o, r).

    Raises:
        ConfigError: ``threshold`` is not finite, or the instructions are equal.
    """

    good: str = "Give a right answer."
    bad: str = "Give a wrong answer."
    threshold: float = 0.5
    separator: str = "\n"

    def __post_init__(self) -> None:
        check_finite(self)
        if self.good == self.bad:
            raise ConfigError(f"both instructions are {self.good!r}", fix="give two that differ")

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of prompt and completion, with the row's weight if it has one, from ranked rows (prompt, completions,
        scores).

        Raises:
            DataError: a row has no replies, or not a number for each; or a prompt of messages has no user message.
        """
        return [
            {
                "prompt": with_marker(prompt, f"{self._asked(score)}{self.separator}"),
                "completion": reply,
                **({} if row.get("weight") is None else {"weight": row["weight"]}),
            }
            for row, (prompt, replies, scores) in ((row, ranked(row, number)) for number, row in enumerate(rows, 1))
            for reply, score in zip(replies, scores, strict=True)
        ]

    def _asked(self, score: float) -> str:
        return self.good if score >= self.threshold else self.bad


def contrast_rows(rows: Sequence[Mapping[str, Any]], size: int) -> list[dict[str, Any]]:
    """Ranked rows for :class:`InstructionContrastObjective`: each prompt with the outputs of its group.

    Rows are grouped in their order, ``size`` to a group, fewer in the last, which joins the one before when it would be
    of one. A prompt's own completion scores 1, the
    others of its group 0; completions that are equal to its own are left out. A group takes size^2 replies.

    Raises:
        UsageError: ``size`` is below 2, or the rows are one.
    """
    if size < 2 or len(rows) == 1:
        raise UsageError(
            f"groups of {min(size, len(rows))} instructions",
            why="an output alone in its group is contrasted with nothing",
            fix="give a size of at least 2, and as many rows",
        )
    found = []
    starts = list(range(0, len(rows), size))
    if len(rows) % size == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        group = rows[start:end]
        for row in group:
            # Not a set: completions of messages cannot be hashed.
            completions = [row["completion"]]
            completions += [
                other["completion"]
                for place, other in enumerate(group)
                if other["completion"] != row["completion"]
                and all(other["completion"] != earlier["completion"] for earlier in group[:place])
            ]
            scores = [1.0] + [0.0] * (len(completions) - 1)
            made = {"prompt": row["prompt"], "completions": completions, "scores": scores}
            found.append(made | ({"weight": row["weight"]} if "weight" in row else {}))
    return found


@dataclass(frozen=True, kw_only=True)
class HIRObjective(InstructionContrastObjective, HindsightRelabel):
    """Contrast of instructions on rankings whose replies :class:`HindsightRelabel` made examples of.

    Every reply of the data becomes an instruction with its output; each ``group_size`` of them, in their order, are a
    group, which must come in one update: :meth:`groups` tells the trainer where it may cut.

    Args:
        group_size: at least 2. contrast_weight, label_smoothing, entropy_coef: as of
            :class:`alignite.objectives.InstructionContrastObjective`, the paper's by default.
        good, bad, threshold, separator: as of :class:`HindsightRelabel`.

    Source: HIR (arXiv 2302.05206, section 3).

    Raises:
        ConfigError: an option is out of its range.
    """

    group_size: int = 4
    label_smoothing: float = 0.2
    entropy_coef: float = 0.001
    takes: ClassVar[str] = "ranked"
    makes: ClassVar[str] = "ranking"

    def __post_init__(self) -> None:
        InstructionContrastObjective.__post_init__(self)
        HindsightRelabel.__post_init__(self)
        check_bound("group_size", self.group_size, 2, True)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**super().odd_rows, TIES: USUAL}  # of the groups that are made below

    def rows(self, rows: Iterable[Mapping[str, Any]], bad: Callable[[DataError], None]) -> Iterator[dict[str, Any]]:
        """Rows of :func:`contrast_rows`, as :class:`alignite.types.RowMaker` says.

        An empty reply is told to ``bad`` and becomes no instruction: in a group it would cost all of them their rows.
        """
        waiting: list[dict[str, Any]] = []
        for made in usable(rows, lambda row: self([row]), bad):
            for one in made:
                if _is_empty(one["completion"]):
                    bad(DataError("an empty reply", fix="leave such replies out of their rankings"))
                else:
                    waiting.append(one)
            # One more than a group may be the last, which joins it.
            while len(waiting) > self.group_size + 1:
                yield from contrast_rows(waiting[: self.group_size], self.group_size)
                del waiting[: self.group_size]
        if waiting:
            yield from contrast_rows(waiting, self.group_size)

    def groups(self, lines: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each record's group, (records,), by its line in the file of :meth:`rows`, from 1.

        Lines of which preparing left no record may be missing.
        """
        numbers = (lines - 1) // self.group_size
        last = lines.max(initial=1)
        # As in contrast_rows: what would be a group of one joins the one before.
        return numbers - (lines == last) if last > 1 and last % self.group_size == 1 else numbers


def _is_empty(reply: Any) -> bool:
    """Whether there is nothing in a reply that could be learned."""
    if isinstance(reply, str):
        return not reply.strip()
    return not any(message.get("tool_calls") or plain(message.get("content") or "").strip() for message in reply)
