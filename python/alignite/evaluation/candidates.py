"""Replies to one prompt of which some are known to be better: read from rows of many formats, and scored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alignite.data.convert import Form, convert_rows
from alignite.data.survey import Count
from alignite.errors import AligniteError, DataError, UsageError
from alignite.native.data import FileRows
from alignite.scoring.combined_reward import checked_scores
from alignite.types import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Placed = tuple[str, Mapping[str, Any]]
"""A row and its place, ``file:line`` or ``row:number``."""
AnyScorer = Scorer | Callable[..., Any]
Item = TypeVar("Item")

# Replies scored in one call: a scorer that refuses one of them is asked again for few others.
_CALL = 512
_EXAMPLES = 3


@dataclass(frozen=True)
class Candidates:
    """Replies to one prompt.

    Args:
        place: of the row.
        prompt, replies: texts or lists of messages.
        values: float64 (replies,), higher is better: the scores of a ranking, p and 1 - p of a pair.
        row: as it was read.
        is_ranking: whether the replies are all that were sampled and graded, so that best of N means something.
    """

    place: str
    prompt: Any
    replies: list[Any]
    values: NDArray[np.float64]
    row: Mapping[str, Any]
    is_ranking: bool

    def pairs(self) -> NDArray[np.int64]:
        """(better, worse) of all strict pairs, int64 (pairs, 2)."""
        found = np.argwhere(self.values[:, None] > self.values[None, :])
        return found.astype(np.int64)


class Skipped:
    """Counts rows that are left out, by reason; the first places of each are kept."""

    def __init__(self) -> None:
        self._found: dict[str, list[Any]] = {}

    def add(self, place: str, error: AligniteError | str) -> None:
        reason = error if isinstance(error, str) else (error.why or error.what).strip()
        known = self._found.setdefault(reason, [0, []])
        known[0] += 1
        if len(known[1]) < _EXAMPLES:
            known[1].append(place)

    def counts(self) -> dict[str, Count]:
        """By reason, how many rows, and the first places."""
        return {reason: Count(count, list(places)) for reason, (count, places) in self._found.items()}

    def __str__(self) -> str:
        return "; ".join(f"{count} rows: {reason} ({places[0]})" for reason, (count, places) in self._found.items())


def form_for(model: AnyScorer) -> Form:
    """How prompts are given to a model: as messages where it has a chat template, or says that it takes them."""
    takes = getattr(model, "takes_messages", getattr(getattr(model, "tokenizer", None), "chat_template", None))
    return "messages" if takes else "auto"


def number_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Placed]:
    """Rows in memory with their places, from ``row:1``."""
    return ((f"row:{number}", row) for number, row in enumerate(rows, start=1))


def read_rows(
    files: Iterable[Path], columns: Mapping[str, str] | None = None, skipped: Skipped | None = None
) -> Iterator[Placed]:
    """The rows of files, one after the other, with their places.

    Args:
        columns: by the name that is wanted, the column's own name.
        skipped: counts rows that cannot be read.

    Raises:
        DataError: a row cannot be read and is not counted; or the file is damaged.
    """
    for file in files:
        for place, text, reason in FileRows(file):
            if text is None:
                if skipped is None:
                    raise DataError(reason or "the row cannot be read", where=place, fix="mend the row")
                skipped.add(place, reason or "the row cannot be read")
                continue
            row: dict[str, Any] = json.loads(text)
            for name, column in (columns or {}).items():
                if column in row:
                    row[name] = row.pop(column)
            yield place, row


def read_candidates(
    rows: Iterable[Placed], skipped: Skipped, *, form: Form = "auto", format: str | None = None
) -> Iterator[Candidates]:
    """Pairs and rankings of any format that :func:`alignite.data.convert.convert_rows` reads, a row at a time.

    Rows that are neither are counted.

    Args:
        form: of prompts and replies where the format leaves it open.
        format: of the rows; default: told from each.
    """
    for place, row in rows:
        try:
            yield from _candidates(place, row, form, format)
        except (DataError, UsageError) as error:  # one that cannot become pairs is told as a wrong use
            skipped.add(place, error)


def _candidates(place: str, row: Mapping[str, Any], form: Form, format: str | None) -> list[Candidates]:
    given = dict(row)
    if "chosen" not in row:
        try:
            made, _ = convert_rows([given], "ranked", form=form, format=format)
        except UsageError:
            made = []  # no ranking, but it may be a pair by other names
        if made and len(made[0]["completions"]) < 2:
            raise DataError("a ranking of one reply", where=place, fix="give two or more")
        if made:
            (found,) = made
            values = np.array(found["scores"], dtype=np.float64)
            return [Candidates(place, found.get("prompt", ""), found["completions"], values, row, is_ranking=True)]
    pairs, _ = convert_rows([given], "preference", form=form, format=format)
    return [
        Candidates(
            place, pair.get("prompt", ""), [pair["chosen"], pair["rejected"]], _chances(pair), row, is_ranking=False
        )
        for pair in pairs
    ]


def _chances(pair: Mapping[str, Any]) -> NDArray[np.float64]:
    """How likely each side is the better one: 1 and 0, unless the row's ``p`` says otherwise."""
    p = float(pair.get("p", 1.0))
    return np.array([p, 1.0 - p])


def score_candidates(
    model: AnyScorer, candidates: Sequence[Candidates], skipped: Skipped
) -> list[NDArray[np.float64] | None]:
    """Scores of each one's replies, float64 (replies, heads); None where the model refuses one, which is counted.

    Raises:
        UsageError, NumericsError: as :func:`alignite.scoring.combined_reward.checked_scores`; both name the row. And
            what the model raises, but for the DataError of a row.
    """

    def work(some: Sequence[Candidates]) -> list[Any]:
        return call_scorer(model, [(one.place, one.prompt, one.replies) for one in some])

    found: list[NDArray[np.float64] | None] = []
    for part in parts(candidates, lambda one: len(one.replies)):
        found += halved(part, work, lambda one, error: skipped.add(one.place, error))
    return found


def halved(
    items: Sequence[Item], work: Callable[[Sequence[Item]], list[Any]], refuse: Callable[[Item, DataError], None]
) -> list[Any]:
    """What ``work`` makes of items, None for those that it refuses with a DataError: they are found by halving."""
    try:
        return work(items)
    except DataError as error:
        if len(items) == 1:
            refuse(items[0], error)
            return [None]
    half = len(items) // 2
    return halved(items[:half], work, refuse) + halved(items[half:], work, refuse)


def parts(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Items in order, in parts of about 512 replies, ``size`` of them an item."""
    part: list[Item] = []
    held = 0
    for item in items:
        part.append(item)
        held += size(item)
        if held >= _CALL:
            yield part
            part, held = [], 0
    if part:
        yield part


def call_scorer(model: AnyScorer, asked: Sequence[tuple[str, Any, list[Any]]]) -> list[NDArray[np.float64]]:
    """Scores of places' prompts and replies in one call, float64 (replies, heads) a place.

    Raises:
        UsageError, NumericsError: as :func:`score_candidates`. And what the model raises.
    """
    prompts = [prompt for _, prompt, replies in asked for _ in replies]
    try:
        scores = checked_scores(model, prompts, [reply for _, _, replies in asked for reply in replies])
    except AligniteError as error:
        # A scorer counts the pairs of a call, which nobody outside knows.
        number = re.fullmatch(r"pair (\d+)", error.where or "")
        places = [f"{place}, reply {number}" for place, _, replies in asked for number in range(len(replies))]
        if number is not None and int(number[1]) < len(places):
            error.where = places[int(number[1])]
        raise
    ends = np.cumsum([len(replies) for _, _, replies in asked])
    return np.split(scores, ends[:-1].tolist())
