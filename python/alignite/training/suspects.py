"""Which rows a loss that is no number comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 8
"""Places that an error names."""


def suspects(batch: Any, columns: Mapping[str, Tensor]) -> list[str]:
    """Where the records of a feedback batch stand of which a column is not finite; all of them when none is told.

    Empty for a batch that does not know its places.
    """
    places: Sequence[str] = getattr(batch, "places", ())
    if not places:
        return []
    found: set[int] = set()
    for column in columns.values():
        if column.dim() == 0 or len(column) not in (len(batch.reply_of), batch.num_replies):
            continue
        wrong = (~column.detach().isfinite()).reshape(len(column), -1).any(1)
        replies = batch.reply_of[wrong] if len(column) == len(batch.reply_of) else wrong.nonzero()[:, 0]
        found.update(batch.records[replies.cpu().numpy()].tolist())
    return [places[record] for record in sorted(found)] or list(places)


def named(places: Sequence[str]) -> str:
    """The first of these places, and how many more there are."""
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more
