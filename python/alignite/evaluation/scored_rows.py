"""Rows with the scores of their replies, a stream of rows for a stream of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.data.convert import Form, convert_rows
from alignite.errors import DataError, UsageError
from alignite.evaluation.candidates import AnyScorer, Placed, Skipped, call_scorer, form_for, halved, parts

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Replies:
    """What of a row is scored.

    Args:
        place: of the row. row: as it was read.
        replies: texts, lists of messages, or one solution as a list of its steps.
        names: what the new columns are called; one name for a list of all scores.
        is_list: whether there is one column for all replies.
    """

    place: str
    row: Mapping[str, Any]
    prompt: Any
    replies: list[Any]
    names: tuple[str, ...]
    is_list: bool = False


def read_replies(place: str, row: Mapping[str, Any], form: Form = "auto") -> Replies:
    """The replies of a row: ``completions``, ``completion``, ``chosen`` and ``rejected``, or the last of ``messages``.

    ``completions`` beside ``labels`` are the steps of one solution.

    Args:
        form: how the prompt of transcripts is given.

    Raises:
        DataError: there is nothing to score.
    """
    prompt = row.get("prompt")
    prompt = "" if prompt is None else prompt
    if "completions" in row:
        given = row["completions"]
        if not isinstance(given, list) or not given:
            raise DataError("completions is no list of replies", where=place, fix="give one or more")
        if "labels" in row:
            return Replies(place, row, prompt, [given], ("score",))
        return Replies(place, row, prompt, given, ("scores",), is_list=True)
    if "completion" in row:
        return Replies(place, row, prompt, [row["completion"]], ("score",))
    if "chosen" in row and "rejected" in row:
        sides = [row["chosen"], row["rejected"]]
        if "prompt" not in row:
            try:
                (pair,), _ = convert_rows([dict(row)], "preference", form=form)
            except UsageError as error:
                raise DataError(error.what, where=place, why=error.why, fix="give the prompt in a column") from error
            prompt, sides = pair.get("prompt", ""), [pair["chosen"], pair["rejected"]]
        return Replies(place, row, prompt, sides, ("score_chosen", "score_rejected"))
    turns = row.get("messages")
    if isinstance(turns, list) and turns:
        last = turns[-1]
        if not isinstance(last, Mapping) or last.get("role") != "assistant":
            raise DataError("the last message is not the assistant's", where=place, fix="end with the reply")
        if len(turns) == 1:
            raise DataError("the conversation is a reply alone", where=place, fix="give what it replies to")
        return Replies(place, row, turns[:-1], [[last]], ("score",))
    raise DataError(
        f"nothing to score: the columns are {', '.join(map(str, row)) or 'none'}",
        where=place,
        fix="give prompt with completion or completions, chosen and rejected, or messages; columns by other names are "
        "named with --columns",
    )


def score_stream(
    model: AnyScorer,
    combine: Callable[[NDArray[np.float64], Mapping[str, Any]], NDArray[np.float64]],
    columns: Callable[[], Sequence[str]],
    rows: Iterable[Placed],
    skipped: Skipped | None,
) -> Iterator[tuple[dict[str, Any], NDArray[np.float64]]]:
    """Each row with its scores, in order, and the scores alone, float64 (replies,).

    A new column in whose place there is one keeps the old as ``given_NAME``. ``best`` counts from 0 and is of a list of
    completions. Where the model has several columns, ``model_scores`` has what each says.

    Args:
        model: a scorer. combine: its columns of a row's replies, (replies, columns), and the row, as one score each.
        columns: their names, asked once something was scored.
        skipped: counts rows that cannot be scored; without it they end the work.

    Raises:
        DataError: a row cannot be scored and is not counted. And what the model raises.
    """
    form = form_for(model)

    def refuse(place: str, error: DataError) -> None:
        if skipped is None:
            error.where = place
            raise error
        skipped.add(place, error)

    def readable() -> Iterator[Replies]:
        for place, row in rows:
            try:
                yield read_replies(place, row, form)
            except DataError as error:
                refuse(place, error)

    def work(some: Sequence[Replies]) -> list[Any]:
        return call_scorer(model, [(one.place, one.prompt, one.replies) for one in some])

    for part in parts(readable(), lambda one: len(one.replies)):
        for one, found in zip(part, halved(part, work, lambda one, error: refuse(one.place, error)), strict=True):
            if found is None:
                continue
            try:
                scores = combine(found, one.row)
            except (DataError, UsageError) as error:
                refuse(one.place, error if isinstance(error, DataError) else DataError(error.what, fix=error.fix))
                continue
            yield _with_scores(one, scores, found, columns()), scores


def _with_scores(
    one: Replies, scores: NDArray[np.float64], found: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    new: dict[str, Any] = {}
    if one.is_list:
        new |= {one.names[0]: scores.tolist(), "best": int(np.argmax(scores))}
    else:
        new |= dict(zip(one.names, scores.tolist(), strict=True))
    if len(names) > 1:
        values = found.T.tolist()
        new["model_scores"] = {
            name: said if one.is_list or len(said) > 1 else said[0] for name, said in zip(names, values, strict=True)
        }
    row = dict(one.row)
    # Rows may be scored again and again: what an earlier scoring wrote has one number in all its names.
    before = [name for name in {**new, "model_scores": None} if name in row]
    ends = chain([""], (f"_{number}" for number in count(2)))
    end = next(end for end in ends if not any(f"given_{name}{end}" in row for name in before))
    kept = {f"given_{name}{end}": row.pop(name) for name in before}
    return row | kept | new
