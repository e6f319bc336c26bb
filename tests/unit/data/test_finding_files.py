"""Which files a name stands for."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pytest

from alignite.config import SFTConfig
from alignite.data.files import find_files
from alignite.data.prepare import files_or_rows, prepare_sft
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, ResourceError

ROW = {"prompt": "q", "completion": "a"}


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(ROW))
    return [folder / name for name in names]


def test_a_folder_is_its_data_files_of_any_kind(tmp_path: Path) -> None:
    names = ["a.jsonl", "b.JSONL.zst", "c.csv.gz", "d.tsv", "e.parquet", "f.arrow", "g.tar", "h.json", "i.tgz"]
    expected = touch(tmp_path, *names)
    touch(tmp_path, "README.md", ".hidden.jsonl", "dataset_info.json", "x.parquet.gz", "below/z.jsonl", "n.jsonl.bak")
    assert find_files([tmp_path]) == find_files([str(tmp_path)]) == expected
    assert find_files([f"{tmp_path}/*.csv*", tmp_path / "a.jsonl"]) == [expected[2], expected[0]]
    assert find_files([f"{tmp_path}/**/[az].jsonl"]) == [expected[0], tmp_path / "below/z.jsonl"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no data file"):
        find_files([tmp_path / "empty"])


def test_saved_data_sets_are_one_source(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list([ROW] * 4)
    made.save_to_disk(tmp_path / "x" / "one", num_shards=2)
    made.train_test_split(0.5).save_to_disk(tmp_path / "both")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "single")
    one = tmp_path / "x" / "one"
    assert find_files([one]) == [one]
    assert find_files([f"{tmp_path}/x/*"]) == find_files([f"{tmp_path}/x/**"]) == [one]
    assert find_files([tmp_path / "single"]) == [tmp_path / "single" / "train"]
    with pytest.raises(DataError, match="holds 2 splits") as error:
        find_files([tmp_path / "both"])
    assert error.value.fix is not None
    assert str(tmp_path / "both" / "test") in error.value.fix
    (tmp_path / "both" / "dataset_dict.json").write_text("[]")
    with pytest.raises(DataError, match="cannot be read"):
        find_files([tmp_path / "both"])


def test_several_kinds_in_one_preparation(tmp_path: Path, tiny_model_folder: Path) -> None:
    datasets.Dataset.from_list([ROW] * 3).save_to_disk(tmp_path / "saved")
    touch(tmp_path, "a.jsonl")
    (tmp_path / "b.csv").write_text("prompt,completion\nq,a\nr,b\n")
    data: list[str | Path] = [tmp_path / "saved", tmp_path / "a.jsonl", str(tmp_path / "*.csv")]
    prepared = prepare_sft(data, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p")
    assert prepared.report["used"] == 6
    again = prepare_sft(data, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p")
    assert again.reused
    datasets.Dataset.from_list([ROW | {"prompt": "other"}] * 3).save_to_disk(tmp_path / "saved")
    assert not prepare_sft(data, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p").reused


def test_tables_in_memory_are_rows(tmp_path: Path) -> None:
    rows = [ROW | {"n": n} for n in range(2500)]
    table = pa.Table.from_pylist(rows)
    expected = [json.dumps(row).encode() for row in rows]
    made: list[Any] = [table, table.combine_chunks().to_batches()[0], datasets.Dataset(table)]
    for data in made:
        assert files_or_rows(data) == ([], expected), type(data)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    return store


def test_urls_are_copied_once_until_they_change(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/d/b.jsonl", b"1")
    memory.pipe("/d/a.jsonl", b"22")
    first, second = find_files(["memory://d/*.jsonl"])
    assert (first.name, second.name) == ("a.jsonl", "b.jsonl")
    assert (first.read_bytes(), second.read_bytes()) == (b"22", b"1")
    opened: list[str] = []
    plain = type(memory).open

    def counted(self: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(path)
        return plain(self, path, *args, **kwargs)

    monkeypatch.setattr(type(memory), "open", counted)
    assert find_files(["memory://d/*.jsonl"]) == [first, second]
    assert opened == []
    memory.pipe("/d/a.jsonl", b"33")
    opened.clear()
    changed, _ = find_files(["memory://d/*.jsonl"])
    assert (changed.read_bytes(), len(opened)) == (b"33", 1)
    assert first.read_bytes() == b"22"


def test_urls_that_lead_nowhere(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for url in ("memory://nothing.jsonl", "memory://no/*.jsonl"):
        with pytest.raises(DataError, match="no data file"):
            find_files([url])
    with pytest.raises(DataError, match=r"cannot read 'never://x/y\.jsonl'"):
        find_files(["never://x/y.jsonl"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        find_files(["s3://bucket/y.jsonl"])
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def missing(url: str) -> Any:
        raise ImportError("install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(DataError, match="install s3fs"):
        find_files(["s3://bucket/y.jsonl"])
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "fsspec":
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(DataError, match="needs the fsspec package"):
        find_files(["memory://d/a.jsonl"])


def test_offline_the_copy_is_taken(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/d/a.jsonl", b"1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    plain = fsspec.core.url_to_fs
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: plain(url.replace("s3://", "memory://")))
    copies = find_files(["s3://d/a.jsonl"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_files(["s3://d/a.jsonl"]) == copies


def test_a_cache_that_cannot_be_written(memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory.pipe("/d/a.jsonl", b"1")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="cannot write"):
        find_files(["memory://d/a.jsonl"])
