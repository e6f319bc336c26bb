"""What the files of this room share: rows of preferences, and counts of rows that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from alignite.data.survey import Count
from alignite.errors import AligniteError, DataError

OnBadRow = Literal["error", "skip"]
EXAMPLES = 3


class BadRows:
    """Counts rows that are left out by reason, or ends the work at the first one.

    Args:
        on_bad_row: ``error`` raises, ``skip`` counts.
    """

    def __init__(self, on_bad_row: OnBadRow = "error") -> None:
        self._raises = on_bad_row == "error"
        self._found: dict[str, list[str]] = {}

    def add(self, where: str, error: AligniteError) -> None:
        """Note a row.

        Raises:
            AligniteError: the row's error with its place, when rows are not skipped.
        """
        if self._raises:
            error.where = where
            raise error
        self._found.setdefault(error.what, []).append(where)

    def counts(self) -> dict[str, Count]:
        """By reason, how many rows, and where the first ones are."""
        return {reason: Count(len(places), places[:EXAMPLES]) for reason, places in self._found.items()}


def need(row: Mapping[str, Any], name: str) -> Any:
    """A row's value.

    Raises:
        DataError: it is not there.
    """
    if row.get(name) is None:
        raise DataError(f"the row has no {name!r}", fix=f"the row has {', '.join(map(str, row)) or 'nothing'}")
    return row[name]


def need_text(row: Mapping[str, Any], name: str) -> str:
    """A row's text.

    Raises:
        DataError: it is not there, empty or no text.
    """
    value = need(row, name)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name!r} is not a text that says something", why=f"it is {value!r:.80}")
    return value


def preference_row(prompt: Any, first: Any, second: Any, p: float, **more: Any) -> dict[str, Any]:
    """A row as preference files have it: ``prompt``, ``chosen``, ``rejected``, ``p``, and ``more`` behind them.

    Args:
        prompt, first, second: texts or lists of messages.
        p: how likely it is that the first reply is the better one. Below .5 the second is chosen, so that ``p`` of the
            row is never below .5; at .5 the first one stands as chosen and the row says that nothing is known.

    Raises:
        DataError: the replies are the same or empty, or p is no probability.
    """
    if not first or not second:
        raise DataError("a reply is empty", fix="leave such pairs out")
    if first == second:
        raise DataError("the two replies are the same", fix="leave such pairs out: they cannot be compared")
    if not 0.0 <= p <= 1.0:
        raise DataError(f"p is {p}", fix="it must be between 0 and 1")
    if p < 0.5:
        first, second, p = second, first, 1.0 - p
    return {"prompt": prompt, "chosen": first, "rejected": second, "p": p, **more}
