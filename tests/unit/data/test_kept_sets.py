"""What preparing may replace, add to and take again: nothing that is there is lost without a word."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

import alignite.data.tokenizer
from alignite.cli.main import main
from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, PreparedSet, merge_shards, prepare
from alignite.data.prepare import prepare_split
from alignite.errors import DataError, ResourceError, UsageError

CONFIG = PrepareConfig(max_length=256, packing="bfd")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def jsonl(path: Path, name: str, count: int = 5) -> Path:
    rows = [{"prompt": f"{name}?", "completion": f"{name} {n}"} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    return jsonl(folder / "a.jsonl", "a"), jsonl(folder / "b.jsonl", "b")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of two formats, 55,000 rows, so six blocks; every 1,500th is not JSON."""
    folder = tmp_path_factory.mktemp("big")
    for name in ("a", "b"):
        with open(folder / name, "w") as file:
            for n in range(27_500):
                row = {"prompt": f"What is {n}?", "completion": "x"} if name == "a" else {"text": f"This is {n}."}
                file.write("broken\n" if n % 1500 == 1499 else json.dumps(row | {"extra": 1}) + "\n")
    return [folder / "a", folder / "b"]


def test_appending_never_removes_what_is_not_a_set(
    two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    made = prepare(two[0], tokenizer, CONFIG, tmp_path / "set")
    for name in ("NOTES.md", "data-of-mine.arrow"):
        (made.folder / name).write_text("mine")
        with pytest.raises(ResourceError, match=f"it holds {name}"):
            prepare(two[1], tokenizer, CONFIG, made.folder, append=True)
        assert (made.folder / name).read_text() == "mine"
        (made.folder / name).unlink()
    link = tmp_path / "link"
    link.symlink_to(made.folder)
    with pytest.raises(ResourceError, match="a file or a link"):
        prepare(two[1], tokenizer, CONFIG, link, append=True)
    assert link.is_symlink()
    assert PreparedSet(made.folder).report["rows"] == 5


def test_what_comes_into_the_folder_while_a_set_is_made_stays(
    two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    made = prepare(two[0], tokenizer, CONFIG, tmp_path / "set")
    rows = jsonl(tmp_path / "many.jsonl", "m", 60_000)

    def tell(*_: int) -> None:
        (made.folder / "NOTES.md").write_text("mine")

    with pytest.raises(ResourceError, match=r"it holds NOTES\.md"):
        prepare(rows, tokenizer, CONFIG, made.folder, append=True, progress=tell)
    assert (made.folder / "NOTES.md").read_text() == "mine"


def test_files_that_a_set_holds_are_not_added_again(
    two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    set_ = tmp_path / "set"
    prepare(two[0], tokenizer, CONFIG, set_)
    both = prepare(two[0].parent, tokenizer, CONFIG, set_, append=True)
    assert (both.report["rows"], both.report["sources"]) == (10, [str(path) for path in two])
    assert both.work[0] == 5
    assert sorted(both.origins(np.arange(len(both))).row_ids.tolist()) == list(range(10))
    assert [note for note in both.report["notes"] if str(two[0]) in note and "not added again" in note]
    for data in (two[0].parent, [two[1], two[0]], two[1], shutil.copy(two[0], tmp_path / "copy.jsonl")):
        again = prepare(data, tokenizer, CONFIG, set_, append=True)
        assert again.reused
        assert again.fingerprint == both.fingerprint


def test_appending_refuses_what_it_cannot_tell(
    two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    for dedup in ("exact", "minhash"):
        config = replace(CONFIG, dedup=dedup)
        prepare(two[0], tokenizer, config, tmp_path / dedup)
        with pytest.raises(UsageError, match="duplicates cannot be told"):
            prepare(two[1], tokenizer, config, tmp_path / dedup, append=True)
    shard = prepare(two[0], tokenizer, CONFIG, tmp_path / "shard", shard=(0, 2))
    with pytest.raises(UsageError, match="a shard is not appended to"):
        prepare(two[1], tokenizer, CONFIG, shard.folder, append=True)


def test_appended_rows_are_not_lost(two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    set_ = tmp_path / "set"
    prepare(two[0], tokenizer, CONFIG, set_)
    both = prepare(two[1], tokenizer, CONFIG, set_, append=True)
    for config in (CONFIG, replace(CONFIG, max_length=99)):
        with pytest.raises(UsageError, match="more appended") as error:
            prepare(two[0], tokenizer, config, set_)
        assert str(two[1]) in str(error.value)
    shards = [prepare(two[0], tokenizer, CONFIG, tmp_path / str(n), shard=(n, 2)).folder for n in (0, 1)]
    with pytest.raises(UsageError, match="more appended"):
        merge_shards(shards, set_)
    assert PreparedSet(set_).fingerprint == both.fingerprint
    assert prepare(two[0].parent, tokenizer, CONFIG, set_).report["rows"] == 10


def test_a_split_does_not_go_into_a_set(two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    config = replace(CONFIG, split_share=0.5)
    made = prepare(two[0], tokenizer, CONFIG, tmp_path / "set")
    with pytest.raises(UsageError, match="not split"):
        prepare_split(two[0], tokenizer, config, made.folder)
    assert not (made.folder / "train").exists()
    rows = jsonl(tmp_path / "rows.jsonl", "r", 100)
    prepare_split(rows, tokenizer, config, tmp_path / "split")
    for call in (
        lambda: PreparedSet(tmp_path / "split"),
        lambda: merge_shards([tmp_path / "split"], tmp_path / "merged"),
        lambda: prepare(two[0], tokenizer, CONFIG, tmp_path / "split", append=True),
    ):
        with pytest.raises(DataError, match="no prepared set here") as error:
            call()
        assert str(tmp_path / "split" / "train") in str(error.value)


def test_an_empty_part_shard_or_file_is_said(two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    def notes(prepared: PreparedSet) -> str:
        return " ".join(prepared.report["notes"])

    config = replace(CONFIG, split_share=1e-9)
    train, validation = prepare_split(two[0], tokenizer, config, tmp_path / "split")
    assert "the set is empty" in notes(validation)
    assert "the set is empty" not in notes(train)
    shards = [prepare(two[0], tokenizer, CONFIG, tmp_path / str(n), shard=(n, 2)) for n in (0, 1)]
    assert "the set is empty" in notes(shards[1])
    assert notes(merge_shards([shard.folder for shard in shards], tmp_path / "merged")) == ""
    for name in ("c", "d"):
        (two[0].parent / f"{name}.jsonl").write_text("\n")
    made = prepare(two[0].parent, tokenizer, CONFIG, tmp_path / "set")
    assert f"2 of 4 files hold no row (first: {two[0].parent / 'c.jsonl'})" in notes(made)


def test_a_set_that_was_moved_away_comes_back(two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    """A kill between the two renames that put a new set in an old one's place."""
    made = prepare(two[0], tokenizer, CONFIG, tmp_path / "set")
    old = tmp_path / ".set.old"
    made.folder.rename(old)
    both = prepare(two[1], tokenizer, CONFIG, made.folder, append=True)
    assert both.report["rows"] == 10
    made.folder.rename(old)
    assert prepare(two[1], tokenizer, CONFIG, made.folder, append=True).reused
    made.folder.rename(old)
    with pytest.raises(UsageError, match="more appended"):
        prepare(two[0], tokenizer, CONFIG, made.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "set"]


def test_a_refusal_leaves_work_that_can_be_gone_on_with(
    two: tuple[Path, Path], tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    staging = tmp_path / ".set.preparing"
    staging.mkdir()
    (staging / "progress.json").write_text("{}")
    with pytest.raises(DataError, match="no prepared set"):
        prepare(two[1], tokenizer, CONFIG, tmp_path / "set", append=True)
    assert (staging / "progress.json").exists()


def on(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    class Day(date):
        @classmethod
        def today(cls) -> date:
            return day

    monkeypatch.setattr(alignite.data.tokenizer, "Date", Day)


@pytest.mark.parametrize("reads_clock", [False, True])
def test_the_next_day_takes_the_same_set(
    reads_clock: bool,
    two: tuple[Path, Path],
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = shutil.copytree(tiny_model_folder, tmp_path / "model")
    if reads_clock:
        template = ChatTokenizer.from_folder(model).chat_template
        (model / "chat_template.jinja").write_text(f"{{{{ strftime_now('%d %B') }}}} {template}")
    tokenizer = ChatTokenizer.from_folder(model)
    first, second = date(2026, 3, 1), date(2026, 3, 2)
    on(monkeypatch, first)
    made = prepare(two[0], tokenizer, CONFIG, tmp_path / "set")
    train, _ = prepare_split(two[0], tokenizer, replace(CONFIG, split_share=0.5), tmp_path / "split")
    shards = [prepare(two[0], tokenizer, CONFIG, tmp_path / "0", shard=(0, 2)).folder]
    assert made.report["template_date"] == ("2026-03-01" if reads_clock else None)
    on(monkeypatch, second)
    shutil.rmtree(tmp_path / "split" / "validation")
    again, validation = prepare_split(two[0], tokenizer, replace(CONFIG, split_share=0.5), tmp_path / "split")
    assert again.reused
    assert validation.report["template_date"] == train.report["template_date"]
    assert prepare(two[0], tokenizer, CONFIG, made.folder).reused
    both = prepare(two[1], tokenizer, CONFIG, made.folder, append=True)
    assert both.report["template_date"] == made.report["template_date"]
    shards.append(prepare(two[0], tokenizer, CONFIG, tmp_path / "1", shard=(1, 2)).folder)
    if reads_clock:
        with pytest.raises(UsageError, match="not of one set"):
            merge_shards(shards, tmp_path / "merged")
        other = prepare(two[0], tokenizer, replace(CONFIG, template_date="2026-03-02"), tmp_path / "other")
        assert other.fingerprint != made.fingerprint
    else:
        assert merge_shards(shards, tmp_path / "merged").fingerprint == made.fingerprint


def test_how_a_file_is_read_is_part_of_the_set(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    text = "prompt,completion\tx\nq,a\tb\n"
    comma, tab, upper = tmp_path / "x.csv", tmp_path / "x.tsv", tmp_path / "y.CSV"
    for path in (comma, tab, upper):
        path.write_text(text)
    made = prepare(comma, tokenizer, replace(CONFIG, columns=["completion=completion\tx"]), tmp_path / "set")
    config = replace(CONFIG, columns=["completion=completion\tx"])
    assert prepare(upper, tokenizer, config, tmp_path / "set").reused
    with pytest.raises(DataError):
        prepare(tab, tokenizer, config, tmp_path / "set")
    assert PreparedSet(tmp_path / "set").fingerprint == made.fingerprint


def test_merged_shards_tell_what_one_machine_tells(big: list[Path], tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    whole = prepare(big, tokenizer, CONFIG, tmp_path / "whole")
    shards = [prepare(big, tokenizer, CONFIG, tmp_path / str(n), shard=(n, 3)).folder for n in range(3)]
    merged = merge_shards(shards, tmp_path / "merged")
    assert whole.report["bad"] == 36
    for path in whole.folder.iterdir():
        assert (merged.folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert merged.work[:2] == (0, 0)


def stopped(big: list[Path], model: Path, folder: Path, number: signal.Signals) -> tuple[int, str, list[str]]:
    command = [sys.executable, "-m", "alignite", "prepare", "--model", str(model), "--data", *map(str, big)]
    command += ["--output_dir", str(folder), "--part_bytes", "1", "--num_threads", "1"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (folder.parent / f".{folder.name}.preparing" / "progress.json").exists():
        assert child.poll() is None, "it finished before it could be stopped"
        time.sleep(0.002)
    child.send_signal(number)
    _, said = child.communicate(timeout=120)
    return child.returncode, said, command


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_command_that_is_stopped_says_that_it_goes_on(
    number: signal.Signals,
    code: int,
    big: list[Path],
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    returned, said, command = stopped(big, tiny_model_folder, tmp_path / "set", number)
    assert returned == code
    assert "the same command goes on" in said
    progress = json.loads((tmp_path / ".set.preparing" / "progress.json").read_text())
    assert main(command[3:]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("time")]
    seconds, rate = float(line.split()[1]), float(line.split()[3].replace(",", ""))
    # The rate is of the rows of this call; rounding of the seconds shown is allowed for.
    assert rate <= 1.5 * (55_000 - progress["report"]["rows"]) / max(seconds, 0.1)
