"""Token windows inside somebody else's pipeline: a picklable function from tables to tables."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignite.config import PrepareConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError
from alignite.native.data import ArrowTable, Preparer


class Preprocessor:
    """Rows to token windows, a table at a time.

    It holds a tokenizer's content and options only, so it can be pickled, sent to another machine, and called in forked
    and spawned workers: the Rust side is made once in each process. By default it works on the calling thread, since
    the pipeline around it (``datasets``, Ray Data, a DataLoader, Spark) has workers of its own.

    Args:
        tokenizer: the model's, or its folder.
        config: the options of :class:`alignite.config.DataOptions`; ``num_threads`` 0 means one thread here.
        pack: let the rows of a table share windows (``packing`` of the config) instead of giving each its own.
        kinds: records that are taken (conversation, text, preference, ranking, steps, unpaired); default: all.

    Example::

        encode = Preprocessor("model", PrepareConfig(max_length=2048))
        dataset = dataset.with_format("arrow").map(encode, batched=True, remove_columns=dataset.column_names)
        ray_dataset = ray_dataset.map_batches(encode, batch_format="pyarrow")
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer | str | Path,
        config: PrepareConfig | None = None,
        *,
        pack: bool = False,
        kinds: tuple[str, ...] = (),
    ) -> None:
        self.tokenizer = tokenizer if isinstance(tokenizer, ChatTokenizer) else ChatTokenizer.from_folder(tokenizer)
        config = config if config is not None else PrepareConfig()
        config = replace(config, num_threads=config.num_threads or 1)
        config.validate()
        self.config, self.pack, self.kinds = config, pack, tuple(kinds)
        self._made: tuple[int, Preparer] | None = None
        self._preparer()  # what is wrong with the model folder is told here, not in a worker

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": None}

    def _preparer(self) -> Preparer:
        # Not across a fork: a template that jinja2 renders has a process of its own behind a pipe.
        if self._made is None or self._made[0] != os.getpid():
            self._made = (os.getpid(), self.tokenizer.preparer(self.config, kinds=self.kinds))
        return self._made[1]

    def __call__(self, table: Any) -> Any:
        """A table of windows for a table of rows.

        Args:
            table: anything with ``__arrow_c_stream__`` or ``__arrow_c_array__``: a pyarrow table or record batch, a
                polars frame. Its columns are read as those of a file are.

        Returns:
            For pyarrow a ``pyarrow.Table``, otherwise an object with ``__arrow_c_stream__``. Columns are those of a
            prepared file (docs/data_flow.md): ``input_ids`` and ``labels`` are large lists of int32, ``row_ids`` says
            which row of the table each segment is. Without ``pack`` a row for each record, in order. A row that cannot
            be used has no tokens, its number in ``row_ids`` and its reason in ``_error``, which is null otherwise.

        Unless ``format`` or columns are named, each row tells its own format by its columns that are not null: what a
        row becomes does not depend on its batch. A row that several formats fit, or with a column of feedback that
        would go unread, cannot be used.

        Raises:
            DataError: the argument is no table, no format fits its columns, or, with ``on_bad_row="error"``, a row is
                bad.
        """
        if isinstance(table, dict):
            raise DataError(
                "the rows are a dict of columns, not a table",
                fix='use dataset.with_format("arrow").map(..., batched=True), or map_batches(batch_format="pyarrow")',
            )
        made = self._preparer().table(table, self.pack)
        pyarrow = sys.modules.get("pyarrow")
        if pyarrow is not None and isinstance(table, pyarrow.Table | pyarrow.RecordBatch):
            return pyarrow.table(made)
        return made


__all__ = ["ArrowTable", "Preprocessor"]
