"""What objectives share that make rows of rankings: a ranking's parts, and markers in prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from alignite.errors import DataError

T = TypeVar("T")


def usable(
    rows: Iterable[Mapping[str, Any]],
    make: Callable[[Mapping[str, Any]], Sequence[T]],
    bad: Callable[[DataError], None],
) -> Iterator[Sequence[T]]:
    """What is made of each row, one after the other; a row of which nothing can be made is told to ``bad``."""
    for row in rows:
        try:
            made = make(row)
        except DataError as error:
            bad(error)
        else:
            yield made


def ranked(row: Mapping[str, Any], number: int) -> tuple[Any, Sequence[Any], list[float]]:
    """The prompt, the replies and their scores of a ranked row, the ``number``-th from 1.

    Raises:
        DataError: there is no reply, a reply has no score, or a score is not finite or no number.
    """
    replies, scores = row["completions"], row["scores"]
    if not len(replies) or len(replies) != len(scores):
        raise DataError(
            f"a ranking has {len(replies)} replies and {len(scores)} scores",
            where=f"row {number}",
            fix="give at least one reply, and a score for each",
        )
    numbers = []
    for score in scores:
        try:
            value = math.nan if isinstance(score, str) else float(score)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"a score is {score!r}", where=f"row {number}", fix="give numbers, or leave the reply out")
        numbers.append(value)
    return row["prompt"], replies, numbers


def with_marker(prompt: Any, marker: str) -> Any:
    """The prompt with a marker before its text, or before the text of its last user message.

    Raises:
        DataError: a prompt of messages has no user message.
    """
    if isinstance(prompt, str):
        return f"{marker}{prompt}"
    messages = [dict(message) for message in prompt]
    for message in reversed(messages):
        if message["role"] == "user":
            message["content"] = f"{marker}{plain(message['content'])}"
            return messages
    raise DataError("a prompt has no user message to put a marker in", fix="begin the prompt with a user message")


def plain(content: Any) -> str:
    """A message's content as one text: its text parts, where it is a list of them.

    Raises:
        DataError: a part is not text.
    """
    if isinstance(content, str):
        return content
    if content is None:
        raise DataError("a message has no text", fix="leave such rows out")
    parts = [part if isinstance(part, str) else part.get("text") for part in content]
    if not all(isinstance(part, str) for part in parts):
        raise DataError("a message has a part that is not text", fix="only text parts are read: leave such rows out")
    return "".join(parts)
