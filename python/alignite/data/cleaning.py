"""Cleaning of texts for any stack: duplicates, overlap with evaluation sets, filters, and a split. Needs no torch."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignite.config.clean import CleanOptions
from alignite.data.files import find_files
from alignite.errors import DataError
from alignite.native.clean import TextCleaner

# Texts that Rust works on between two looks at Ctrl-C.
_CHUNK = 8192

Text = str | Callable[[Any], str] | None
"""Where a row's text is: a column, a function of the row, or None for rows that are strings."""


@dataclass(frozen=True)
class Cleaned:
    """What became of each row.

    Args:
        kept: rows that stay, counted from 0, in order; int64 (kept,).
        held_out: those of them that are for validation; int64.
        groups: of each row the first that it is a duplicate of, or itself; int64 (rows,).
        dropped: of each other row the reason, and ``file:line`` of what it overlaps with.
    """

    kept: NDArray[np.int64]
    held_out: NDArray[np.int64]
    groups: NDArray[np.int64]
    dropped: dict[int, tuple[str, str | None]]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were left out, by reason."""
        return dict(Counter(reason for reason, _ in self.dropped.values()))


def clean(
    rows: Any,
    options: CleanOptions,
    *,
    text: Text = None,
    against: Mapping[str, Sequence[str]] | None = None,
    folder: str | os.PathLike[str] | None = None,
    num_threads: int = 0,
) -> Cleaned:
    """Look for rows to leave out, by filters, evaluation sets and duplicates, in this order.

    A row has one reason, the first that applies, and of duplicates the first that nothing else drops stays. The result
    does not depend on ``num_threads``.

    Args:
        rows: a sequence of strings, of rows whose text ``text`` tells, or a pyarrow string column (not copied, a null
            is an empty text).
        options: what to look for; all texts have one turn, and tokens are not counted here.
        text: a column of the rows, or a function that makes a row's text.
        against: further evaluation texts by name, beside the files in ``options.decontaminate``.
        folder: where minhash keeps about 500 bytes a row and 4 a word while it works; default: the system's folder for
            such files.
        num_threads: 0 means all cores.

    Raises:
        ConfigError: an option is out of range.
        DataError: a row has no text, or an evaluation set cannot be read.
        ResourceError: ``folder`` is full or cannot be written.
    """
    options.validate()
    cleaner = TextCleaner(json.dumps(cleaning_values(options)), os.fspath(folder or tempfile.gettempdir()), num_threads)
    for name, texts in (against or {}).items():
        for line, one in enumerate(texts, 1):
            cleaner.add_evaluation(name, line, one)
    if cleaner.needs_two_passes:
        for _, chunk in _chunks(rows, text):
            cleaner.observe(chunk)
        cleaner.finish_pass()
    groups, held_out, dropped = [np.empty(0, np.int64)], [np.empty(0, np.bool_)], {}
    for first, chunk in _chunks(rows, text):
        group, held, reasons = cleaner.judge(first, chunk)
        groups.append(group)
        held_out.append(held)
        dropped.update({first + row: reason for row, reason in reasons.items()})
    group = np.concatenate(groups)
    stays = np.ones(len(group), np.bool_)
    stays[list(dropped)] = False
    return Cleaned(np.flatnonzero(stays), np.flatnonzero(np.concatenate(held_out)), group, dropped)


def cleaning_values(options: CleanOptions) -> dict[str, Any]:
    """The options of cleaning as the Rust core takes them: evaluation sets are files.

    Raises:
        DataError: an evaluation set is not there.
    """
    values = {item.name: getattr(options, item.name) for item in fields(CleanOptions)}
    return values | {"decontaminate": [str(path) for path in find_files(options.decontaminate)]}


def deduplicate(
    rows: Any,
    method: str = "exact",
    *,
    threshold: float = 0.8,
    ngram: int = 5,
    fold: bool = False,
    text: Text = None,
    folder: str | os.PathLike[str] | None = None,
    num_threads: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find duplicates; the first of each group stays.

    ``exact`` compares 128-bit hashes of the texts. ``minhash`` leaves out a text whose set of word n-grams has a
    Jaccard similarity of at least ``threshold`` to that of a text that stays; words are letters and digits in lower
    case and each letter by itself in scripts without spaces. Pairs are found by sketches of 128 entries (Dahlgaard,
    Knudsen, Thorup 2017) that agree in a band (Leskovec, Rajaraman, Ullman, *Mining of Massive Datasets*, chapter 3),
    and then the sets themselves decide. With 16 bands of 8, those of a threshold of 0.8, 95% of the pairs that are as
    similar as 0.8 are looked at, and 99.9% of those at 0.9.

    Args:
        rows, text, folder, num_threads: as in :func:`clean`.
        method: ``exact`` or ``minhash``.
        threshold: similarity from which texts are near duplicates, above 0 and at most 1.
        ngram: words of an n-gram; a text of fewer words is one n-gram.
        fold: let exact duplicates differ in case, white space and Unicode form.

    Returns:
        The rows that stay, in order, int64 (kept,); and of each row the first of its group, int64 (rows,).

    Raises:
        ConfigError, DataError, ResourceError: as :func:`clean`.
    """
    options = CleanOptions(dedup=method, dedup_threshold=threshold, dedup_ngram=ngram, dedup_fold=fold)
    found = clean(rows, options, text=text, folder=folder, num_threads=num_threads)
    return found.kept, found.groups


def decontaminate(
    rows: Any,
    against: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Sequence[str]],
    *,
    ngram: int = 13,
    share: float = 0.0,
    columns: Sequence[str] = (),
    text: Text = None,
    num_threads: int = 0,
) -> Cleaned:
    """Find rows that share ``ngram`` words in sequence with an evaluation set.

    Thirteen words is what GPT-3 used (Brown et al. 2020, appendix C); words are letters and digits in lower case.
    Evaluation texts of 4 to 12 words match a row that is the same as a whole, shorter ones match nothing.

    Args:
        rows, text, num_threads: as in :func:`clean`.
        against: files, or texts by the name of their set.
        ngram: words in sequence.
        share: share of a row's n-grams that must be exceeded; 0: a single one is enough.
        columns: columns of the files that count; none: all strings in them.

    Raises:
        ConfigError, DataError: as :func:`clean`.
    """
    if isinstance(against, str | os.PathLike):
        against = [against]
    named = against if isinstance(against, Mapping) else None
    files = [] if isinstance(against, Mapping) else [os.fspath(path) for path in against]
    options = CleanOptions(
        decontaminate=files,
        decontaminate_columns=list(columns),
        decontaminate_ngram=ngram,
        decontaminate_share=share,
    )
    return clean(rows, options, text=text, against=named, num_threads=num_threads)


def _chunks(rows: Any, text: Text) -> Iterator[tuple[int, Any]]:
    """The texts a chunk at a time, each with its first row."""
    if hasattr(rows, "chunks") or hasattr(rows, "buffers"):
        first = 0
        for array in getattr(rows, "chunks", [rows]):
            for start in range(0, len(array), _CHUNK):
                part = array.slice(start, _CHUNK)
                yield first + start, _arrow(part)
            first += len(array)
        return
    for first in range(0, len(rows), _CHUNK):
        yield first, [_text(row, first + place, text) for place, row in enumerate(rows[first : first + _CHUNK])]


def _arrow(array: Any) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Offsets and bytes of an Arrow string array."""
    try:
        array = array.cast("large_string")
    except (ValueError, NotImplementedError) as error:
        raise DataError("the column is no text", None, str(error), "give a string column") from None
    if array.null_count:
        array = array.fill_null("")
    _, offsets, values = array.buffers()
    if len(array) == 0 or offsets is None:
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return ends, np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8)


def _text(row: Any, place: int, text: Text) -> str:
    if isinstance(text, str):
        value = row.get(text) if isinstance(row, Mapping) else None
    else:
        value = row if text is None else text(row)
    if not isinstance(value, str):
        where = f"row {place}"
        kind = type(value).__name__
        raise DataError("a row has no text", where, f"it is {kind}", "name a column or a function with text")
    return value
