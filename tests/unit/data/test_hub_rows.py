"""Data sets of a hub on this machine: which split, which config, where the rows end up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Repo, environment, fake_hub, python

from alignite.data import hub_rows
from alignite.data.files import find_files
from alignite.data.hub_access import HubName
from alignite.errors import DataError

FIND = "from alignite.data.files import find_files; print(*find_files(sys.argv[1:]), sep='\\n')"


def jsonl(*numbers: int) -> bytes:
    answer = {"role": "assistant", "content": "b"}
    rows = [{"messages": [{"role": "user", "content": f"é{n}"}, answer]} for n in numbers]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


README = b"""---
configs:
- config_name: small
  data_files: [{split: train, path: small/train.jsonl}, {split: test, path: small/test.jsonl}]
- config_name: large
  data_files: [{split: train, path: large/train.jsonl}]
---
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.repos["datasets/org/rows"] = Repo({"main": {"train.jsonl": jsonl(*range(5)), "test.jsonl": jsonl(7)}})
        configs = {"small/train.jsonl": jsonl(1), "small/test.jsonl": jsonl(2), "large/train.jsonl": jsonl(3)}
        hub.repos["datasets/org/two"] = Repo({"main": {"README.md": README, **configs}})
        hub.repos["datasets/org/broken"] = Repo({"main": {"train.jsonl": jsonl(1) + b'{"messages": ['}})
        yield hub


def found(done: object) -> list[Path]:
    assert getattr(done, "returncode", 1) == 0, done
    return [Path(line) for line in str(getattr(done, "stdout", "")).split()]


def test_splits_and_configs_become_files(tmp_path: Path, hub: FakeHub) -> None:
    env = environment(tmp_path, hub.url)
    names = ["org/rows", "org/rows:train", "org/rows:test", "org/two:small:test", "org/two:large:train"]
    files = found(python(FIND, env, *names))
    assert files[0] == files[1]
    rows = [path.read_bytes() for path in files]
    expected = [jsonl(*range(5)), jsonl(*range(5)), jsonl(7), jsonl(2), jsonl(3)]
    assert [[json.loads(line) for line in text.splitlines()] for text in rows] == [
        [json.loads(line) for line in text.splitlines()] for text in expected
    ]
    assert all(path.is_relative_to(tmp_path / "hf" / "datasets" / "alignite") for path in files)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/rows:dev", "['train', 'test']"),
        ("org/rows:odd:train", "'odd' not found"),
        ("org/two", "small"),
        ("org/none", "answers 404"),
        ("org/rows@v9", "has no revision 'v9'"),
        ("org/broken", "JSON parse error"),
    ],
)
def test_what_is_not_there_is_named(name: str, said: str, tmp_path: Path, hub: FakeHub) -> None:
    done = python(FIND, environment(tmp_path, hub.url), name)
    assert done.returncode == 3, done.stderr
    assert said in done.stdout
    assert "fix: " in done.stdout


@pytest.mark.slow
def test_the_rows_stay_when_the_hub_changes_or_goes(tmp_path: Path, hub: FakeHub) -> None:
    env = environment(tmp_path, hub.url)
    first = found(python(FIND, env, "org/rows"))
    repo = hub.repos["datasets/org/rows"]
    old = repo.files["main"]
    repo.files = {"main": {"train.jsonl": jsonl(8), "test.jsonl": jsonl(9)}, "old": old}
    asked = len(hub.asked)
    assert found(python(FIND, env, "org/rows")) == first
    assert len(hub.asked) == asked
    # Another split is of the same commit; another revision is another file.
    assert json.loads(found(python(FIND, env, "org/rows:test"))[0].read_text()) == json.loads(jsonl(7))
    assert json.loads(found(python(FIND, env, f"org/rows@{repo.sha('main')}"))[0].read_text()) == json.loads(jsonl(8))
    hub.close()
    assert found(python(FIND, env, "org/rows")) == first
    assert found(python(FIND, {**env, "HF_HUB_OFFLINE": "1"}, "org/rows")) == first


@pytest.mark.slow
def test_without_the_hub_the_copy_of_datasets_serves(tmp_path: Path) -> None:
    # A commit, because datasets asks another host, for statistics, when it is given none.
    load = "import datasets; datasets.load_dataset('org/rows', revision=sys.argv[1])"
    with fake_hub() as hub:
        repo = hub.repos["datasets/org/rows"] = Repo({"main": {"train.jsonl": jsonl(1), "test.jsonl": jsonl(2)}})
        env = environment(tmp_path, hub.url, HF_UPDATE_DOWNLOAD_COUNTS="0")
        assert python(load, env, str(repo.sha("main"))).returncode == 0
    for offline in ({}, {"HF_HUB_OFFLINE": "1"}):
        files = found(python(FIND, {**env, **offline}, "org/rows:test"))
        assert json.loads(files[0].read_text()) == json.loads(jsonl(2))
    done = python(FIND, env, "org/rows@v1:test")
    assert done.returncode == 3
    assert "not in the cache" in done.stdout
    assert "'train', 'test'" in python(FIND, env, "org/rows:dev").stdout


def test_rows_that_are_no_text_are_refused_with_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "when": datetime.date(2026, 1, 1)}]
    file = tmp_path / "train.jsonl"
    with pytest.raises(DataError) as error:
        hub_rows._write(rows, file, HubName("org/rows"))
    assert error.value.where == "org/rows:2"
    assert "not JSON serializable" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_and_a_missing_split_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="names no split") as error:
        find_files(["org/rows"], needs_split=True)
    assert "org/rows:test" in str(error.value)
    monkeypatch.setattr(hub_rows, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="needs the datasets package") as error:
        find_files(["org/rows:test"])
    assert "pip install 'alignite[datasets]'" in str(error.value)


def test_a_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "rows").write_text("{}\n")
    (tmp_path / "org" / "rows:test").write_text("{}\n")
    assert find_files(["org/rows", "org/rows:test"]) == [Path("org/rows"), Path("org/rows:test")]
    with pytest.raises(DataError, match="no data file") as error:
        find_files(["org/raws"])
    assert "folder 'org' is here and holds no 'raws'" in str(error.value)
    with pytest.raises(DataError, match="no data file"):
        find_files(["org/rows.jsonl"])
