"""The preprocessor inside other people's pipelines: each must give the very tokens that `prepare` gives."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, Preprocessor, prepare
from alignite.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}]}
    for n in range(300)
]
CONFIG = PrepareConfig(max_length=512)


@pytest.fixture(scope="module")
def encode(tiny_model_folder: Path) -> Preprocessor:
    return Preprocessor(tiny_model_folder, CONFIG)


@pytest.fixture(scope="module")
def expected(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    folder = tmp_path_factory.mktemp("expected") / "set"
    prepared = prepare(ROWS, ChatTokenizer.from_folder(tiny_model_folder), CONFIG, folder)
    return [prepared.arrays([window])[0].tolist() for window in range(len(prepared))]


def test_plain_pyarrow(encode: Preprocessor, expected: list[list[int]]) -> None:
    table = pa.Table.from_pylist(ROWS)
    made = encode(table)
    assert isinstance(made, pa.Table)
    assert made["input_ids"].to_pylist() == expected
    assert made["_error"].null_count == len(ROWS)
    for batch in table.to_batches(max_chunksize=64)[:1]:
        assert encode(batch)["input_ids"].to_pylist() == expected[:64]
    # Two threads and a packed table hold the same tokens.
    packed = Preprocessor(encode.tokenizer, PrepareConfig(max_length=512, packing="bfd", num_threads=2), pack=True)
    windows = packed(table)
    assert windows.num_rows < len(ROWS) / 5
    flat = sorted(token for window in windows["input_ids"].to_pylist() for token in window)
    assert flat == sorted(token for row in expected for token in row)


def test_anything_with_the_arrow_interface(encode: Preprocessor, expected: list[list[int]]) -> None:
    class Foreign:
        """What polars or any other library is, seen from here."""

        def __init__(self, table: pa.Table) -> None:
            self.table = table

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.table.__arrow_c_stream__(requested_schema)

    made = encode(Foreign(pa.Table.from_pylist(ROWS)))
    assert not isinstance(made, pa.Table)
    assert "input_ids" in made.column_names
    assert pa.table(made)["input_ids"].to_pylist() == expected
    assert pa.table(made).num_rows == len(made) == len(ROWS)  # a second consumer gets it again
    with pytest.raises(DataError, match="no Arrow table"):
        encode([1, 2])
    with pytest.raises(DataError, match="with_format"):
        encode({"messages": []})


def test_bad_rows_come_back_with_their_reason(encode: Preprocessor) -> None:
    rows = [*ROWS[:2], {"messages": []}, {"messages": [{"role": "user", "content": "alone"}]}, ROWS[2]]
    made = encode(pa.Table.from_pylist(rows))
    assert made.num_rows == 5
    errors = made["_error"].to_pylist()
    assert [error is None for error in errors] == [True, True, False, False, True]
    assert "empty" in errors[2]
    assert "assistant" in errors[3]
    assert made["input_ids"].to_pylist()[2:4] == [[], []]
    strict = Preprocessor(encode.tokenizer, PrepareConfig(on_bad_row="error"))
    with pytest.raises(DataError, match="row 2"):
        strict(pa.Table.from_pylist(rows))


MIXED: list[dict[str, Any]] = [
    {"prompt": "q1", "completion": "a1"},
    {"prompt": "q2", "completion": "a2", "label": True},
    {"prompt": "q3", "chosen": "good", "rejected": "bad"},
    {"messages": ROWS[0]["messages"]},
    {"messages": ROWS[1]["messages"], "text": "also"},
    {"prompt": "q4", "completion": "a4", "rejected": "bad"},
    {"text": "raw text"},
    {"prompt": "q5"},
    {"prompt": "q6", "completion": "a6"},
    {"prompt": "q7", "completion": "a7", "label": False},
]


def test_a_row_is_read_alike_whatever_stands_beside_it(encode: Preprocessor) -> None:
    table = pa.Table.from_pylist(MIXED, schema=_schema(MIXED))

    def done(size: int) -> list[dict[str, Any]]:
        parts = [encode(table.slice(start, size)).drop_columns(["row_ids", "lines"]) for start in range(0, 10, size)]
        return [row for part in parts for row in part.to_pylist()]

    whole = done(len(MIXED))
    for size in (1, 2, 3, 5, 10, 100):
        assert repr(done(size)) == repr(whole)  # NaN is not NaN
    errors = [row["_error"] for row in whole]
    assert [index for index, error in enumerate(errors) if error] == [4, 5, 7]
    assert "messages, text; name the one that is meant with format=" in errors[4]
    assert "rejected" in errors[5]
    assert all(row["input_ids"] for row, error in zip(whole, errors, strict=True) if not error)
    # What no row can be is told at once.
    with pytest.raises(DataError, match="no known format"):
        encode(pa.Table.from_pylist([{"a": 1}]))


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.unify_schemas(
        [pa.Table.from_pylist([{name: row[name]}]).schema for name in columns for row in rows if name in row]
    )


def test_a_bad_row_of_a_packed_table_says_which_it_was(encode: Preprocessor) -> None:
    packed = Preprocessor(encode.tokenizer, PrepareConfig(max_length=512, packing="bfd"), pack=True)
    made = packed(pa.Table.from_pylist([*ROWS[:2], {"messages": []}, ROWS[2]])).to_pylist()
    assert [sorted(row["row_ids"]) for row in made] == [[0, 1, 3], [2]]
    assert [row["_error"] is None for row in made] == [True, False]


def test_spark_and_dask_shapes(encode: Preprocessor, expected: list[list[int]]) -> None:
    """Spark's mapInArrow hands over an iterator of batches and wants one back; Dask hands over pandas frames."""
    pandas = pytest.importorskip("pandas")
    table = pa.Table.from_pylist(ROWS)

    def in_arrow(batches: Any) -> Any:
        for batch in batches:
            yield from encode(batch).to_batches()

    made = pa.Table.from_batches(list(in_arrow(iter(table.to_batches(max_chunksize=100)))))
    assert made["input_ids"].to_pylist() == expected

    def frame(part: Any) -> Any:
        return encode(pa.Table.from_pandas(part, preserve_index=False)).to_pandas()

    made = frame(pandas.DataFrame(ROWS))
    assert [ids.tolist() for ids in made["input_ids"]] == expected


def test_datasets_map(encode: Preprocessor, expected: list[list[int]]) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    for processes in (None, 2):
        done = rows.with_format("arrow").map(
            encode, batched=True, batch_size=100, remove_columns=rows.column_names, num_proc=processes
        )
        assert done.with_format(None)["input_ids"][:] == expected


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ray_data_map_batches(encode: Preprocessor, expected: list[list[int]]) -> None:
    """In a process of its own: Ray starts servers and threads that outlive a test."""
    code = f"""
import logging, pickle, sys, pyarrow as pa, ray
encode = pickle.loads(sys.stdin.buffer.read())
ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
ray.data.DataContext.get_current().execution_options.preserve_order = True
rows = {ROWS!r}
made = ray.data.from_arrow(pa.Table.from_pylist(rows)).repartition(3)
made = made.map_batches(encode, batch_format="pyarrow", batch_size=50)
ids = [list(map(int, row["input_ids"])) for row in made.take_all()]
sys.stdout.buffer.write(pickle.dumps(ids))
ray.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(encode), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert sorted(pickle.loads(done.stdout[done.stdout.index(b"\x80") :])) == sorted(expected)


class Rows:
    """A map-style data set for a DataLoader that encodes in its workers."""

    def __init__(self, encode: Preprocessor) -> None:
        self.encode = encode

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> list[int]:
        ids: list[int] = self.encode(pa.Table.from_pylist([ROWS[index]]))["input_ids"][0].as_py()
        return ids


def first(items: list[list[int]]) -> list[int]:
    return items[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(encode: Preprocessor, expected: list[list[int]], start: str) -> None:
    from torch.utils.data import DataLoader

    encode(pa.Table.from_pylist(ROWS[:1]))  # the Rust side is made before the fork
    loader: Any = DataLoader(
        Rows(encode),  # type: ignore[arg-type]
        num_workers=2,
        collate_fn=first,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    assert list(loader) == expected


def test_a_fork_after_work_on_many_threads(tiny_model_folder: Path, expected: list[list[int]]) -> None:
    encode = Preprocessor(tiny_model_folder, PrepareConfig(max_length=512, num_threads=2))
    table = pa.Table.from_pylist(ROWS)
    assert encode(table)["input_ids"].to_pylist() == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for made in pool.map(encode, [table, table]):
            assert made["input_ids"].to_pylist() == expected


def test_without_torch(tiny_model_folder: Path) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers'):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import pyarrow as pa
from alignite.data import Preprocessor
made = Preprocessor({str(tiny_model_folder)!r})(pa.Table.from_pylist({ROWS[:3]!r}))
print(made.num_rows, made["_error"].null_count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3"]
