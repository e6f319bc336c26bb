"""Rows of every kind of file are the rows that ``datasets``, ``pyarrow`` and Python's own readers see in it."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignite.native.data import FileRows

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"question {n}\u2028 \u0085 \"quoted\", 'x'\n\tnew line",
        "messages": [{"role": "user", "content": "häß 🙂" * (n % 3)}, {"role": "assistant", "content": None}],
        "score": n / 7,
        "rank": 2**53 + n,
        "flag": n % 2 == 0,
        "tags": ["a", "b"][: n % 3],
    }
    for n in range(40)
]


def ours(path: Path) -> list[dict[str, Any]]:
    rows = []
    for place, row, reason in FileRows(path):
        assert row is not None, f"{place}: {reason}"
        rows.append(json.loads(row))
    return rows


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def frames(content: bytes) -> bytes:
    middle = len(content) // 2
    return b"".join(zstandard.compress(part) for part in (content[:middle], content[middle:]))


def table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def write_arrow(path: Path, made: pa.Table, stream: bool, compression: str | None = None, rows: int = 7) -> None:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(path, made.schema, options=options) as writer:
        writer.write_table(made, max_chunksize=rows)


JSON: dict[str, Callable[[], bytes]] = {
    "a.jsonl": lambda: lines(ROWS),
    "a.json": lambda: json.dumps(ROWS, indent=1).encode(),
    "small.json": lambda: json.dumps(ROWS, separators=(",", ":"), ensure_ascii=False).encode(),
    "a.jsonl.gz": lambda: gzip.compress(lines(ROWS[:9])) + gzip.compress(lines(ROWS[9:])),
    "a.jsonl.zst": lambda: frames(lines(ROWS)),
}


@pytest.mark.parametrize("name", JSON)
def test_json(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(JSON[name]())
    assert ours(path) == ROWS
    if name in {"a.jsonl", "a.json", "a.jsonl.gz"}:
        theirs = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
        expected = theirs.to_list()
        if name == "a.json":
            # datasets 5.2 reads arrays through ujson, which keeps ten digits of a number.
            assert [row.pop("score") for row in expected] == pytest.approx([row["score"] for row in ROWS], abs=1e-10)
            expected = [row | {"score": mine["score"]} for row, mine in zip(expected, ROWS, strict=True)]
        assert ours(path) == expected


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_columns(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        pq.write_table(table(), path, row_group_size=11)
    else:
        write_arrow(path, table(), name.startswith("stream"))
    assert ours(path) == ROWS
    kind = "parquet" if name == "a.parquet" else "arrow"
    theirs = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    assert ours(path) == theirs.to_list()


def test_csv_and_tsv(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": f'a,"{n}\n\n'} for n, row in enumerate(ROWS)] + [
        {"prompt": "", "completion": "007"}
    ]
    for name, dialect in (("a.csv", "excel"), ("b.csv", "unix"), ("a.tsv", "excel-tab")):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["prompt", "completion"], dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
        with path.open(newline="", encoding="utf-8") as handle:
            assert ours(path) == list(csv.DictReader(handle, dialect=dialect)) == rows
    theirs = datasets.load_dataset(
        "csv", data_files=str(tmp_path / "a.csv"), split="train", cache_dir=str(tmp_path / "c")
    )
    # pandas takes an empty cell for a missing value, and a column of digits for numbers.
    assert ours(tmp_path / "a.csv")[:-1] == theirs.to_list()[:-1]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_webdataset(layout: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    folder = "f" * 90
    with tarfile.open(path, "w", format=layout) as tar:
        for n, row in enumerate(ROWS):
            for name, content in (("json", json.dumps(row).encode()), ("txt", b"text %d" % n), ("seg.txt", b"")):
                member = tarfile.TarInfo(f"{folder}/{'n' * 60}{n:04d}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    theirs = datasets.load_dataset("webdataset", data_files=str(path), split="train", cache_dir=str(tmp_path / "c"))
    expected = [
        {"__key__": row["__key__"], **row["json"], "txt": row["txt"], "seg.txt": row["seg.txt"]}
        for row in theirs.to_list()
    ]
    assert ours(path) == expected
    assert len(expected) == len(ROWS)


def plain(value: Any) -> Any:
    """What a value of Arrow is as JSON."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        if value and isinstance(value[0], tuple):
            return {key: plain(item) for key, item in value}
        return [plain(item) for item in value]
    return value


def every_type(for_parquet: bool) -> pa.Table:
    time = datetime.datetime(2024, 2, 29, 13, 14, 15, 123456)
    columns = {
        "utf8": pa.array(["a", None, "ü"]),
        "large": pa.array(["a", "", None], pa.large_string()),
        "view": pa.array(["a", "b" * 40, None], pa.string_view()),
        "null": pa.nulls(3),
        "bool": pa.array([True, False, None]),
        **{
            str(kind): pa.array([0, 1, None], kind)
            for kind in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32())
        },
        "i64": pa.array([-(2**63), 2**63 - 1, None]),
        "u64": pa.array([0, 2**64 - 1, None], pa.uint64()),
        "f16": pa.array([0.5, -0.25, None], pa.float16()),
        "f32": pa.array([0.1, 1e30, None], pa.float32()),
        "f64": pa.array([0.1, 1e300, -0.0]),
        "list": pa.array([["a", None], [], None]),
        "large_list": pa.array([[1], [2, 3], None], pa.large_list(pa.int32())),
        "fixed": pa.array([[1, 2], [3, None], None], pa.list_(pa.int16(), 2)),
        "struct": pa.array([{"a": 1, "b": [{"c": "x"}]}, {"a": None, "b": None}, None]),
        "map": pa.array([[("k", 1), ("l", None)], [("m", 2)], None], pa.map_(pa.string(), pa.int64())),
        "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
        "dictionary_list": pa.array([["x", "y"], None, []], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "binary": pa.array([b"a", b"\xc3\xbc", None]),
        "fixed_binary": pa.array([b"ab", b"cd", None], pa.binary(2)),
        "us": pa.array([time, None, time.replace(microsecond=0)], pa.timestamp("us")),
        "zone": pa.array([time, None, None], pa.timestamp("us", "UTC")),
        "date": pa.array([time.date(), None, None]),
        "decimal": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal128(10, 2)),
    }
    if not for_parquet:
        columns["list_view"] = pa.array([[1], [2, 3], None], pa.list_view(pa.int64()))
        columns["large_binary"] = pa.array([b"a", b"", None], pa.large_binary())
        columns["s"] = pa.array([time.replace(microsecond=0), None, None], pa.timestamp("s"))
    return pa.table(columns)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_every_type_of_arrow(compression: str | None, tmp_path: Path) -> None:
    made = every_type(for_parquet=False)
    for stream in (True, False):
        write_arrow(tmp_path / "a", made, stream, compression, rows=2)
        assert ours(tmp_path / "a") == [plain(row) for row in made.to_pylist()]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_every_type_of_parquet(compression: str, tmp_path: Path) -> None:
    made = every_type(for_parquet=True)
    for version, dictionary in (("1.0", False), ("2.0", True)):
        pq.write_table(
            made, tmp_path / "a", compression=compression, data_page_version=version, use_dictionary=dictionary,
            row_group_size=2,
        )  # fmt: skip
        expected = [plain(row) for row in pq.read_table(tmp_path / "a").to_pylist()]
        assert ours(tmp_path / "a") == expected


def test_saved_data_sets(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(tmp_path / "shards", num_shards=3)
    assert ours(tmp_path / "shards") == ROWS
    assert [place.rsplit("/", 1)[1] for place, _, _ in FileRows(tmp_path / "shards")][-1] == "shards:40"
    made.select([5, 3, 8]).save_to_disk(tmp_path / "chosen")
    assert ours(tmp_path / "chosen") == [ROWS[5], ROWS[3], ROWS[8]]
    made.train_test_split(0.25, seed=1).save_to_disk(tmp_path / "both")
    for split in ("train", "test"):
        assert ours(tmp_path / "both" / split) == datasets.load_from_disk(str(tmp_path / "both"))[split].to_list()


def test_columns_of_json_in_a_saved_data_set(tmp_path: Path) -> None:
    rows = [{"tools": [{"name": "f", "x": 1}, {"y": [2]}]}, {"tools": ["text", None]}]
    made = datasets.Dataset.from_dict(
        {"tools": [row["tools"] for row in rows]},
        features=datasets.Features({"tools": datasets.List(datasets.Json())}),
    )
    made.save_to_disk(tmp_path / "saved")
    made.to_parquet(tmp_path / "a.parquet")
    assert ours(tmp_path / "saved") == ours(tmp_path / "a.parquet") == made.to_list() == rows


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**127), 2**128 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda number: number != 0 or math.copysign(1, number) > 0
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=6), VALUES, max_size=4), max_size=6)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=OBJECTS, indent=st.sampled_from([None, 0, 2]), is_ascii=st.booleans())
def test_any_rows_come_back_exactly(rows: list[Any], indent: int | None, is_ascii: bool, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes("".join(json.dumps(row, ensure_ascii=is_ascii) + "\n" for row in rows).encode())
    (tmp_path / "a.json").write_bytes(json.dumps(rows, indent=indent, ensure_ascii=is_ascii).encode())
    for name in ("a.jsonl", "a.json"):
        # As text, so that 1 is not 1.0 and keys keep their order.
        assert json.dumps(ours(tmp_path / name)) == json.dumps(rows)
