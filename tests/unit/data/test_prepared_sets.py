"""Sets as wholes: shards and their merge, appending, resuming after a kill, one writer, quarantine, exports."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, PreparedSet, merge_shards, prepare
from alignite.data.gate import failures, parse_condition
from alignite.errors import ConfigError, DataError, ResourceError, UsageError

CONFIG = PrepareConfig(max_length=256, packing="bfd")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25,003 rows, so three blocks; every 5,000th is not JSON."""
    path = tmp_path_factory.mktemp("big") / "rows.jsonl"
    with open(path, "w") as file:
        for n in range(25_003):
            row = {"prompt": f"What is {n} and {n % 7}?", "completion": "x" * (1 + n % 23)}
            file.write("broken\n" if n % 5000 == 4999 else json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(big: Path, tokenizer: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return prepare(big, tokenizer, CONFIG, tmp_path_factory.mktemp("whole") / "set")


def content(prepared: PreparedSet) -> list[bytes]:
    return [path.read_bytes() for path in sorted(prepared.folder.glob("data-*.arrow"))]


def test_every_row_is_accounted_for(whole: PreparedSet, big: Path) -> None:
    report = whole.report
    assert (report["rows"], report["used"], report["bad"]) == (25_003, 24_998, 5)
    left = [json.loads(line) for line in (whole.folder / "quarantine.jsonl").read_text().splitlines()]
    assert [row["where"] for row in left] == [f"{big}:{n}" for n in range(5000, 25_001, 5000)]
    assert all(row["row"] == "broken" and row["bad"] and "JSON" in row["reason"] for row in left)
    windows = np.arange(len(whole))
    origins = whole.origins(windows)
    assert sorted(origins.row_ids.tolist()) == [n for n in range(25_003) if n % 5000 != 4999]
    assert origins.lines.tolist() == [row + 1 for row in origins.row_ids.tolist()]
    assert origins.places()[0] == f"{big}:{origins.lines[0]}"
    assert whole.window_tokens(windows).max() <= 256


def test_shards_merge_to_the_very_set(whole: PreparedSet, big: Path, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    shards = [prepare(big, tokenizer, CONFIG, tmp_path / str(n), shard=(n, 4)).folder for n in range(4)]
    assert PreparedSet(shards[3]).report["windows"] == 0  # three blocks: a shard may be empty
    merged = merge_shards(shards[::-1], tmp_path / "merged")
    assert content(merged) == content(whole)
    assert merged.fingerprint == whole.fingerprint
    for name in ("report.json", "quarantine.jsonl"):
        assert (merged.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert prepare(big, tokenizer, CONFIG, merged.folder).reused
    with pytest.raises(UsageError, match="missing or given twice"):
        merge_shards([shards[0], shards[0], *shards[2:]], tmp_path / "again")
    other = prepare(big, tokenizer, PrepareConfig(max_length=255, packing="bfd"), tmp_path / "o", shard=(1, 4))
    with pytest.raises(UsageError, match="not of one set"):
        merge_shards([shards[0], other.folder, *shards[2:]], tmp_path / "again")
    with pytest.raises(UsageError, match="not a shard"):
        merge_shards([merged.folder], tmp_path / "again")


def test_appending_adds_once(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": f"b{n}"} for n in range(50)]
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps(row) + "\n" for row in rows[:7]) + "[1]\n")
    first = prepare(rows, tokenizer, CONFIG, tmp_path / "set")
    before = content(first)
    both = prepare(more, tokenizer, CONFIG, tmp_path / "set", append=True)
    assert content(both)[: len(before)] == before
    report = both.report
    assert (report["rows"], report["used"], report["bad"]) == (58, 57, 1)
    assert report["sources"] == ["row", str(more)]
    origins = both.origins(np.arange(len(both)))
    assert sorted(origins.row_ids.tolist()) == list(range(57))
    assert f"{more}:7" in origins.places()
    assert both.fingerprint != first.fingerprint
    again = prepare(more, tokenizer, CONFIG, tmp_path / "set", append=True)
    assert again.reused
    assert again.fingerprint == both.fingerprint
    with pytest.raises(UsageError, match="other options"):
        prepare(more, tokenizer, PrepareConfig(max_length=99), tmp_path / "set", append=True)
    with pytest.raises(DataError, match="no prepared set"):
        prepare(more, tokenizer, CONFIG, tmp_path / "nothing", append=True)


KILLED = """
import sys
from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, prepare

def tell(rows, tokens):
    print(rows, flush=True)

config = PrepareConfig(max_length=256, packing="bfd", part_bytes=1, num_threads=1)
prepare(sys.argv[1], ChatTokenizer.from_folder(sys.argv[2]), config, sys.argv[3], progress=tell)
"""


def test_work_that_was_killed_is_gone_on_with(
    whole: PreparedSet, big: Path, tiny_model_folder: Path, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(big), str(tiny_model_folder), str(tmp_path / "set")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    staging = tmp_path / ".set.preparing"
    while not (staging / "progress.json").exists():
        assert child.poll() is None, "it finished before it could be killed"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = json.loads((staging / "progress.json").read_text())["next_block"]
    assert done > 0
    resumed = prepare(big, tokenizer, CONFIG, tmp_path / "set")
    assert not staging.exists()
    windows = np.arange(len(whole))
    for ours, theirs in zip(resumed.arrays(windows), whole.arrays(windows), strict=True):
        assert np.array_equal(ours, theirs)
    for name in ("rows", "used", "bad", "tokens", "windows", "fill", "dropped", "format"):
        assert resumed.report[name] == whole.report[name], name
    assert (resumed.folder / "quarantine.jsonl").read_bytes() == (whole.folder / "quarantine.jsonl").read_bytes()


def _prepare(rows: Path, model: Path, folder: Path, queue: Any) -> None:
    prepared = prepare(rows, ChatTokenizer.from_folder(model), CONFIG, folder)
    queue.put((prepared.reused, prepared.fingerprint))


def test_one_process_makes_the_set_and_the_others_wait(big: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    ranks = [context.Process(target=_prepare, args=(big, tiny_model_folder, tmp_path / "set", queue)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    found = [queue.get(timeout=120) for _ in ranks]
    for rank in ranks:
        rank.join()
    assert sorted(reused for reused, _ in found) == [False, True, True]
    assert len({fingerprint for _, fingerprint in found}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_exports_hold_the_same_tokens(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [{"prompt": "a" * n, "completion": "b"} for n in range(1, 30)]
    prepared = prepare(rows, tokenizer, CONFIG, tmp_path / "set")
    (path,) = prepared.export(tmp_path / "set.parquet")
    table = pq.read_table(path)
    ids, labels, _, segments = prepared.arrays(np.arange(len(prepared)))
    assert np.concatenate(table["input_ids"].to_pylist()).tolist() == ids.tolist()
    assert table["num_scored"].to_pylist() == prepared.window_scored(np.arange(len(prepared))).tolist()
    files = prepared.export(tmp_path / "m", to="megatron")
    assert [file.name for file in files] == ["m.bin", "m.idx", "m_labels.bin", "m_labels.idx"]
    for start, flat in ((0, ids), (2, labels)):
        assert np.fromfile(files[start], dtype="<i4").tolist() == flat.tolist()
        index = files[start + 1].read_bytes()
        assert index[:9] == b"MMIDIDX\x00\x00"
        assert int.from_bytes(index[9:17], "little") == 1
        assert index[17] == 4  # int32
        sequences, documents = (int.from_bytes(index[at : at + 8], "little") for at in (18, 26))
        assert (sequences, documents) == (len(rows), len(rows) + 1)
        lengths = np.frombuffer(index, "<i4", sequences, 34)
        pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
        starts = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
        assert lengths.tolist() == segments[:, 1].tolist()
        assert pointers.tolist() == [0, *np.cumsum(4 * lengths.astype(np.int64))[:-1].tolist()]
        assert starts.tolist() == list(range(documents))
        assert len(index) == 34 + 12 * sequences + 8 * documents
    with pytest.raises(UsageError, match="no export"):
        prepared.export(tmp_path / "x", to="avro")
    assert prepared.export(tmp_path / "new" / "folder" / "set.parquet")[0].is_file()
    assert all(file.is_file() for file in prepared.export(tmp_path / "megatron" / "prepared", to="megatron"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        prepared.export(tmp_path / "file" / "set.parquet")
    for to, output in (("parquet", "set.parquet"), ("megatron", "m")):
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        with pytest.raises(ResourceError, match="there already"):
            prepared.export(tmp_path / output, to=to)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_megatron_refuses_what_its_files_cannot_say(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    pairs = prepare([{"prompt": "q", "chosen": "a", "rejected": "b"}], tokenizer, CONFIG, tmp_path / "pairs")
    with pytest.raises(UsageError, match="compared and rated replies"):
        pairs.export(tmp_path / "m", to="megatron")
    user = {"role": "user", "content": "q"}
    for weight in (1.0, 0.5):
        talk = [user, {"role": "assistant", "content": "a", "weight": weight}]
        prepared = prepare([{"messages": talk}], tokenizer, CONFIG, tmp_path / f"set{weight}")
        if weight == 1:
            prepared.export(tmp_path / "ones", to="megatron")
            continue
        with pytest.raises(UsageError, match="weights other than 1"):
            prepared.export(tmp_path / "m", to="megatron")
    assert not list(tmp_path.glob("m*"))
    assert pairs.export(tmp_path / "pairs.parquet")[0].is_file()


def test_datasets_reads_the_files(whole: PreparedSet, tmp_path: Path) -> None:
    import datasets

    files = [str(path) for path in sorted(whole.folder.glob("data-*.arrow"))]
    found = datasets.load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(found) == len(whole)
    assert found[3]["input_ids"] == whole.arrays([3])[0].tolist()


def test_a_report_can_fail_a_pipeline(whole: PreparedSet) -> None:
    report = whole.report
    assert failures(report, ["bad>5", "dropped>1%", "tokens<10"]) == []
    assert failures(report, ["bad>=5"]) == ["bad>=5: bad is 5"]
    assert "of the rows" in failures(report, ["used < 100%"])[0]
    assert failures(report, ["fill<0.0001%"]) == []
    assert failures(report, ["fill<=100%"])[0].endswith(f"fill is {100 * report['fill']:.4g}%")
    assert failures(report, ["tokens>1e3"]) == [f"tokens>1e3: tokens is {report['tokens']:g}"]
    for condition in ("tokens<50%", "rows>1%", "longest>5%"):
        with pytest.raises(ConfigError, match="share of nothing"):
            parse_condition(condition)
    with pytest.raises(ConfigError, match="did you mean dropped") as error:
        parse_condition("dropd>1")
    assert "the report has" in str(error.value)
    with pytest.raises(ConfigError, match="dropped>1%"):
        failures(report, ["dropped"])


def test_the_disk_is_looked_at_first(
    big: Path, tokenizer: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 1000))
    with pytest.raises(ResourceError, match="too little room"):
        prepare(big, tokenizer, CONFIG, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_odd_values_of_python_are_read_or_are_bad_rows(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    good = {"prompt": "q", "completion": "a"}
    odd: list[dict[str, Any]] = [
        {**good, "at": datetime(2026, 1, 1, tzinfo=UTC), "raw": b"x", "n": np.int64(3)},
        {"prompt": "half \ud800", "completion": "a"},
        {"prompt": b"\xff", "completion": "a"},
        {"prompt": b"text", "completion": "a"},
    ]
    report = prepare(odd, tokenizer, CONFIG, tmp_path / "set").report
    assert (report["used"], report["bad"]) == (2, 2)
    assert list(report["dropped"]) == ["half a surrogate pair is not text"]
    with pytest.raises(DataError, match="rows and paths are given together"):
        prepare(["a.jsonl", good], tokenizer, CONFIG, tmp_path / "other")  # type: ignore[arg-type]


def test_a_selection_of_datasets_is_read_as_the_whole_is(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    import datasets

    config = PrepareConfig(max_length=256)
    made = [{"prompt": f"q{n}", "completion": "a", "at": datetime(2026, 1, 1), "raw": b"\x01"} for n in range(6)]
    rows = datasets.Dataset.from_list(made)
    whole = prepare(rows, tokenizer, config, tmp_path / "whole")
    ids = [whole.arrays([n])[0].tolist() for n in range(6)]
    picked = prepare(rows.select([0, 2, 5]), tokenizer, config, tmp_path / "picked")
    assert [picked.arrays([n])[0].tolist() for n in range(3)] == [ids[0], ids[2], ids[5]]
    even = rows.filter(lambda _, n: n % 2 == 0, with_indices=True)
    evens = prepare(even, tokenizer, config, tmp_path / "even")
    assert [evens.arrays([n])[0].tolist() for n in range(3)] == ids[::2]
