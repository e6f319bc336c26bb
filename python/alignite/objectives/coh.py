"""Chain of Hindsight: comparisons become conversations in which a marker says which answer is the good one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import ConfigError, DataError
from alignite.objectives.pieces import check_choice
from alignite.objectives.rows import plain, ranked, usable
from alignite.objectives.sft import SFTObjective
from alignite.types import SftBatch

FORMS = ("p", "n", "pn", "np")


@dataclass(frozen=True, kw_only=True)
class ChainOfHindsight:
    """Turns preference and ranked rows into rows of messages for supervised fine-tuning, their answers alone scored.

    The forms of a row, with its good answer p and its bad answer n: ``p`` and ``n``, one answer after its marker;
    ``pn`` and ``np``, both in one conversation, so that the second is written with the first in view. A marker ends
    the last user message, or is a user message of its own before the second answer. Earlier assistant messages of a
    prompt are not scored. After training, ask with the good marker.

    Args:
        good, bad: the markers.
        forms: which forms to write, in this order.
        separator: between a user message and the marker.

    Source: Chain of Hindsight (arXiv 2302.02676, section 2).

    Raises:
        ConfigError: a form that there is not, or none, or two equal markers.
    """

    good: str = "A helpful answer:"
    bad: str = "An unhelpful answer:"
    forms: Sequence[str] = FORMS
    separator: str = "\n"

    def __post_init__(self) -> None:
        for form in self.forms:
            check_choice("forms", form, FORMS)
        if not self.forms:
            raise ConfigError("forms is empty", fix="give at least one of p, n, pn, np")
        if self.good == self.bad:
            raise ConfigError(f"both markers are {self.good!r}", fix="give two that differ")

    def __call__(self, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Rows of messages, ``forms`` of each row in turn.

        Args:
            rows: prompt, chosen, rejected; or prompt, completions, scores, of which the best and the worst are taken.
                Prompts and answers are texts or lists of messages. Where ``p`` is below 1/2 the rejected answer is
                the good one. A ranking without two different scores gives none, nor does a ``p`` of 1/2. The answers
                have the row's ``weight``, by which their tokens count.

        Raises:
            DataError: a prompt does not end with a user message, an answer has more than one message, or a ranking has
                no replies or not a number for each.
        """
        return [
            {"messages": self._messages(row["prompt"], form, answers, row.get("weight"))}
            for number, row in enumerate(rows, 1)
            if (answers := _answers(row, number)) is not None
            for form in self.forms
        ]

    def _messages(
        self, prompt: Any, form: str, answers: Mapping[str, str], weight: float | None
    ) -> list[dict[str, Any]]:
        given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        messages: list[dict[str, Any]] = [dict(one) for one in given]
        if not messages or messages[-1]["role"] != "user":
            raise DataError(
                "a prompt does not end with a user message",
                why="the marker that says which answer follows stands there",
                fix="end each prompt with a user message",
            )
        for message in messages:
            if message["role"] == "assistant":
                message["train"] = False
        markers = {"p": self.good, "n": self.bad}
        messages[-1]["content"] = plain(messages[-1]["content"]) + self.separator + markers[form[0]]
        for place, side in enumerate(form):
            if place:
                messages.append({"role": "user", "content": markers[side]})
            counted = {} if weight is None else {"weight": weight}
            messages.append({"role": "assistant", "content": answers[side], "train": True, **counted})
        return messages


@dataclass(frozen=True, kw_only=True)
class CoHObjective(ChainOfHindsight, SFTObjective):
    """Supervised fine-tuning on the rows that :class:`ChainOfHindsight` makes, whose options it has.

    Source, errors: as there.
    """

    takes: ClassVar[str] = "preference"
    makes: ClassVar[str] = "conversation"
    unread: ClassVar[tuple[str, ...]] = ("margin",)

    def rows(self, rows: Iterable[Mapping[str, Any]], bad: Callable[[DataError], None]) -> Iterator[dict[str, Any]]:
        """Rows of messages of preferences, as :class:`alignite.types.RowMaker` says."""

        def marked(row: Mapping[str, Any]) -> list[dict[str, Any]]:
            if row.get("p") == 0.5:
                raise DataError(
                    "a pair whose p is 1/2, a tie", why="neither answer is the good one", fix="leave such rows out"
                )
            return self([row])

        for made in usable(rows, marked, bad):
            yield from made


def _answers(row: Mapping[str, Any], number: int) -> dict[str, str] | None:
    if "chosen" in row:
        good, worse = _text(row["chosen"]), _text(row["rejected"])
        p = 1.0 if row.get("p") is None else row["p"]
        if p == 0.5:
            return None
        return {"p": good, "n": worse} if p > 0.5 else {"p": worse, "n": good}
    _, replies, scores = ranked(row, number)
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    if not scores[best] > scores[worst]:
        return None
    return {"p": _text(replies[best]), "n": _text(replies[worst])}


def _text(answer: Any) -> str:
    if isinstance(answer, str):
        return answer
    if len(answer) != 1 or answer[0]["role"] != "assistant":
        raise DataError(
            f"an answer is {len(answer)} messages",
            why="a marker names one answer",
            fix="give a text, or a list of one assistant message",
        )
    return plain(answer[0]["content"])


def forget(batch: SftBatch, token: int, *, ratio: float = 0.15, seed: int = 0) -> SftBatch:
    """The batch with a random ``ratio`` of its input tokens replaced by ``token``; labels stay as they are.

    A tensor form of forgetful causal masking, which keeps an answer from being copied from the one before it. The
    method hides past tokens from attention; here what stands in their place still is attended to, so it is an
    approximation. The first token of a segment is never replaced.

    Args:
        token: an id that says nothing, such as the padding token's.
        ratio: at least 0 and below 1. seed: the same seed hides the same tokens.

    Source: Chain of Hindsight (arXiv 2302.02676, section 2), after forgetful causal masking (arXiv 2210.13432).

    Raises:
        ConfigError: ``ratio`` is out of its range.
    """
    import torch

    check_bound("ratio", ratio, 0, True)
    if ratio >= 1:
        raise ConfigError(f"ratio is {ratio}", fix="it must be below 1")
    hidden = np.random.default_rng(seed).random(batch.num_tokens) < ratio
    hidden[batch.segments[:, 0]] = False
    mask = torch.from_numpy(hidden).to(batch.input_ids.device)
    return replace(batch, input_ids=batch.input_ids.masked_fill(mask, token))
