"""Data files that are damaged or made to hurt: a typed error or a bad row with its place, never a signal or a panic."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.survey import preview
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, ResourceError
from alignite.native.data import FileRows

GOOD = b'{"prompt": "q", "completion": "a"}'


def found(path: Path, max_row_bytes: int = 1 << 20) -> list[tuple[str, str]]:
    """Every row as (place without the folder, "" or the reason why it is bad)."""
    rows = FileRows(path, max_row_bytes)
    return [(place.rsplit("/", 1)[-1], reason or "") for place, _, reason in rows]


BAD_LINES = {
    b"null": "the line is null, not an object",
    b"[1]": "the line is a list, not an object",
    b'{"a": "\xff"}': "the line is not UTF-8",
    b'{"a": "\xed\xa0\x80"}': "the line is not UTF-8",
    b'{"a": "\x00"}': "the line is not JSON",
    b"\x00\x00": "the line is not JSON",
    b'{"a": "\\ud83d"}': "half a surrogate pair is not text",
    b'{"a": NaN}': "NaN and Infinity are not JSON",
    b'{"a": -Infinity}': "NaN and Infinity are not JSON",
    b'{"a": 1e999}': "a number is out of range",
    b'{"a": %d}' % 2**200: "an integer has more than 128 bits",
    b'{"a": 1, "b": {"c": 1, "c": 1}}': 'the key "c" is there twice',
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}": "the row is nested more than 127 deep",
    b'{"a": ' + b'{"b":' * 100_000: "the row is nested more than 127 deep",
    b'{"a": 1} x': "the line is not JSON",
    b'{"a": "' + b"x" * (1 << 20) + b'"}': "the row is longer than 1048576 bytes",
}
KEPT = [b'{"a": "\\u0000"}', b'{"a": %d, "b": %d}' % (2**63, -(2**127)), '{"a": "\u2028\u2029\x85"}'.encode()]


def test_each_bad_line_has_its_number_and_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = list(BAD_LINES)
    path.write_bytes(b"\n".join(part for line in bad for part in (line, GOOD, b"")) + b"\n".join(KEPT))
    expected = [(f"a.jsonl:{1 + 3 * n}", BAD_LINES[line]) for n, line in enumerate(bad)]
    rows = found(path)
    assert [(place, reason.split(" (")[0]) for place, reason in rows if reason] == expected
    assert len(rows) == 2 * len(bad) + len(KEPT)
    rows_read = [row for _, row, _ in FileRows(path)][-len(KEPT) :]
    assert [json.loads(row or "") for row in rows_read] == [json.loads(line) for line in KEPT]


def test_preview_and_prepare_say_the_same(tmp_path: Path, tiny_model_folder: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = list(BAD_LINES)[:-1]  # the last one is bad by the lower limit of these tests only
    path.write_bytes(b"\n".join([*bad, GOOD]))
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    seen = preview(path, tokenizer, SFTConfig())
    assert seen.report["rows"] == len(bad) + 1
    assert seen.bad.count == len(bad)
    assert seen.bad.examples[0] == f"{path}:1"
    with pytest.raises(DataError, match=r"a.jsonl:1: the line is null"):
        prepare_sft(path, tokenizer, SFTConfig(on_bad_row="error"), tmp_path / "p")
    prepared = prepare_sft(path, tokenizer, SFTConfig(), tmp_path / "p")
    assert prepared.report["used"] == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json"])
def test_an_empty_file_is_an_error(name: str, tmp_path: Path, tiny_model_folder: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="the data is empty"):
        prepare_sft(tmp_path / name, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p")


def test_ragged_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'p,c\n"x\n\n",y\na\nb,c,d\n\xff,x\nlast,"row\n')
    assert found(path) == [
        ("a.csv:2", ""),
        ("a.csv:5", "the row has 1 columns, the header has 2"),
        ("a.csv:6", "the row has 3 columns, the header has 2"),
        ("a.csv:7", found(path)[3][1]),
        ("a.csv:8", "the file is damaged (a quote is not closed)"),
    ]
    assert found(path)[3][1].startswith("the row is not UTF-8")
    path.write_bytes(b"p,p\n1,2\n")
    with pytest.raises(DataError, match=r'a\.csv:1: two columns are named "p"'):
        FileRows(path)


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"q{n % 7}", "completion": "answer " * (n % 5), "n": n, "l": [{"x": n}] * (n % 3)}
        for n in range(count)
    ]


def _jsonl(count: int = 60) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows(count))


def _parquet(**options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows(60)), sink, row_group_size=25, **options)
    return sink.getvalue()


def _arrow(stream: bool, compression: str | None) -> bytes:
    made = pa.Table.from_pylist(rows(60))
    made = made.set_column(0, "prompt", made["prompt"].dictionary_encode())
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, made.schema, options=options) as writer:
        writer.write_table(made, max_chunksize=25)
    return sink.getvalue()


def _tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for n, row in enumerate(rows(12)):
            member = tarfile.TarInfo("ü" * 60 + f"{n}.json")
            content = json.dumps(row).encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return sink.getvalue()


KINDS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(_jsonl()),
    "zstd": lambda: zstandard.compress(_jsonl()),
    "array": lambda: json.dumps(rows(20)).encode(),
    "tar": _tar,
    "parquet": lambda: _parquet(compression="snappy"),
    "parquet plain": lambda: _parquet(compression="none", use_dictionary=False, data_page_version="2.0"),
    "parquet zstd": lambda: _parquet(compression="zstd", write_page_checksum=True),
    "file": lambda: _arrow(False, None),
    "file lz4": lambda: _arrow(False, "lz4"),
    "stream": lambda: _arrow(True, None),
    "stream zstd": lambda: _arrow(True, "zstd"),
}


def survives(path: Path) -> list[str]:
    """Reasons of a file that may be damaged; anything but rows and typed errors fails the test."""
    try:
        return [reason for _, reason in found(path) if reason]
    except (DataError, ResourceError) as error:
        return [str(error)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_file_is_always_found(kind: str, tmp_path: Path) -> None:
    whole = KINDS[kind]()
    path = tmp_path / "a"
    path.write_bytes(whole)
    assert survives(path) == []
    # What follows the marks of the end is only lengths and zeros.
    end = {"tar": 10240, "file": 0, "file lz4": 0}.get(kind, 0)
    last = len(whole.rstrip(b"\0")) if end else len(whole)
    if kind.startswith("file"):
        last = len(whole) - 10 - int.from_bytes(whole[-10:-6], "little")
    for cut in sorted({*range(600, last, max(1, last // 40)), last // 2, last - 1}):
        path.write_bytes(whole[:cut])
        reasons = survives(path)
        assert reasons, cut
        assert "the file is damaged" in reasons[-1], cut


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bits_and_strange_numbers_never_kill(kind: str, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(KINDS[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        # Lengths and descriptions stand at both ends.
        place = data.draw(st.sampled_from([place, place % min(600, len(content)), -1 - place % 600 % len(content)]))
        content[place] = data.draw(st.sampled_from([content[place] ^ 1 << place % 8, 0, 0xFF, 0x7F, 0x80]))
    path = tmp_path / "a"
    path.write_bytes(content)
    survives(path)


def test_a_saved_data_set_that_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    state = folder / "state.json"
    for content, why in [
        ("{", "the line is not JSON"),
        ("{}", "names no data files"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "outside of the folder"),
        ('{"_data_files": [{"filename": 1}]}', "outside of the folder"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "indices.arrow"}]}', "file of indices"),
        ('{"_data_files": [], "_indices_files": [{"filename": "indices.arrow"}]}', "file of indices"),
    ]:
        state.write_text(content)
        with pytest.raises(DataError, match=why):
            FileRows(folder)
    state.write_text('{"_data_files": [{"filename": "data-0.arrow"}]}')
    ((_, reason),) = found(folder)
    assert reason.startswith("the file is damaged")
    assert "data-0.arrow" in reason


MEASURE = """
import sys
from alignite.native.data import FileRows
def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) // 1024
before = memory("VmRSS")
rows = bad = 0
last = ""
for place, row, reason in FileRows(sys.argv[1]):
    rows, bad, last = rows + 1, bad + (reason is not None), reason or last
print(rows, bad, memory("VmHWM") - before, last, sep="|")
"""


def measured(path: Path) -> tuple[int, int, int, str]:
    """Rows, bad rows, and the MiB by which the memory of a process that reads them grows at most; the last reason."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    count, bad, memory, reason = done.stdout.strip().split("|")
    return int(count), int(bad), int(memory), reason


def test_one_line_of_100_mb(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as handle:
        handle.write(GOOD + b'\n{"prompt": "')
        for _ in range(100):
            handle.write(b"x" * 1_000_000)
        handle.write(b'", "completion": "a"}\n' + GOOD)
    count, bad, memory, reason = measured(path)
    assert (count, bad, reason) == (3, 1, "the row is longer than 67108864 bytes")
    # The row's 64 MiB, and what the vector was before it grew: the allocator gives that back a moment later.
    assert memory < 240
    assert [place for place, _, _ in FileRows(path)] == [f"{path}:{n}" for n in (1, 2, 3)]


def test_bombs_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        for _ in range(300):
            handle.write(b"[" * (1 << 20))
    assert path.stat().st_size < 3 << 20
    _, bad, memory, _ = measured(path)
    assert (bad, memory < 160) == (1, True), memory
    # A dictionary of one long value, named 100,000 times: 100 GB when written out.
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"a": long}), path, compression="zstd", dictionary_pagesize_limit=4 << 20)
    head = f"import itertools, sys; sys.argv[1:] = [{str(path)!r}]\n"
    code = head + MEASURE.replace("FileRows(sys.argv[1])", "itertools.islice(FileRows(sys.argv[1]), 600)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    count, bad_rows, memory_used, _ = done.stdout.split("|")
    assert (count, bad_rows) == ("600", "0")
    assert int(memory_used) < 450


def test_lists_of_nothing_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    made = pa.table({"a": pa.LargeListArray.from_arrays([0, 2**24], pa.nulls(2**24))})
    with pa.ipc.new_file(path, made.schema) as writer:
        writer.write_table(made)
    assert found(path) == [("a.arrow:1", "the row is longer than 1048576 bytes")]


def _many_rows(path: Path, kind: str, megabytes: int) -> int:
    # pyarrow looks at the size of a page once in 1024 rows, and a page is in memory as a whole.
    words, count = (300, megabytes * 330) if kind == "parquet" else (13_000, megabytes * 10)
    row = {"prompt": "question " * 100, "completion": "answer " * words}
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row] * count), path, use_dictionary=False, row_group_size=1_000_000)
    elif kind == "arrow":
        made = pa.Table.from_pylist([row] * 100)
        with pa.ipc.new_file(path, made.schema) as writer:
            for _ in range(count // 100):
                writer.write_table(made)
    else:
        line = json.dumps(row).encode()
        ends = {"jsonl": (b"", b"\n", b""), "array": (b"[", b",\n", b"]"), "gzip": (b"", b"\n", b"")}
        start, between, end = ends[kind]
        with gzip.open(path, "wb", 1) if kind == "gzip" else path.open("wb") as handle:
            handle.write(start + line)
            for _ in range(count - 1):
                handle.write(between + line)
            handle.write(end)
    return count


@pytest.mark.parametrize(
    ("kind", "small", "large"),
    [*((k, 50, 200) for k in ("jsonl", "parquet")), *((k, 20, 100) for k in ("array", "gzip", "arrow"))],
)
def test_memory_does_not_grow_with_the_file(kind: str, small: int, large: int, tmp_path: Path) -> None:
    grown = []
    for megabytes in (small, large):
        written = _many_rows(tmp_path / "a", kind, megabytes)
        count, bad, memory, _ = measured(tmp_path / "a")
        assert (count, bad) == (written, 0)
        grown.append(memory)
    # 8 MiB is what the allocator may keep for a moment more or less.
    assert grown[1] - grown[0] < 8 + 0.1 * (large - small), grown


def test_pipes(tmp_path: Path, tiny_model_folder: Path) -> None:
    code = "import sys; from alignite.native.data import FileRows; print(*[p for p, _, _ in FileRows('/dev/stdin')])"
    done = subprocess.run([sys.executable, "-c", code], input=b"\n".join([GOOD] * 3), capture_output=True, check=True)
    assert done.stdout.decode().split() == [f"/dev/stdin:{n}" for n in (1, 2, 3)]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb") as handle:
            handle.write(gzip.compress(GOOD))

    writer = threading.Thread(target=write)
    writer.start()
    assert found(pipe) == [("pipe:1", "")]
    writer.join()
    handle = os.open(pipe, os.O_RDWR)  # opening it for reading does not wait
    with pytest.raises(DataError, match="read only once"):
        prepare_sft(pipe, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p")
    os.close(handle)
    with pytest.raises(DataError, match="neither a file nor a pipe"):
        FileRows("/dev/zero")


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"PK\x03\x04", "a zip archive"), (b"BZh91AY", "a bzip2 file"), (b"\xfd7zXZ\0", "an xz file")],
)
def test_kinds_that_are_not_read_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=f"this is {what}, which is not read"):
        FileRows(tmp_path / "a.jsonl")
    (tmp_path / "b.gz").write_bytes(gzip.compress(gzip.compress(GOOD)))
    with pytest.raises(DataError, match="compressed twice"):
        FileRows(tmp_path / "b.gz")


def test_a_zstd_window_over_the_limit(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    path = tmp_path / "a.zst"
    with (
        path.open("wb") as handle,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(handle) as out,
    ):
        out.write(GOOD)
    with pytest.raises(ResourceError, match="window is larger than 128 MiB"):
        FileRows(path)


def test_pages_and_batches_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    made = pa.table({"a": ["x" * (200 << 20)], "b": ["y" * (200 << 20)], "c": ["z" * (200 << 20)]})
    pq.write_table(made, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < 1 << 20
    assert found(path)[0][1].startswith("the pages of a row group are larger than 512 MiB")
    with pa.ipc.new_stream(path, made.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(made)
    assert found(path)[0][1].startswith("a batch is larger than 512 MiB")
