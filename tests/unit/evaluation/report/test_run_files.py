"""A run's folder is read for what it holds; what it does not is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from run_folders import BEGAN, event, lines, make_run, report, start

from alignite.errors import DataError
from alignite.evaluation.report.run_files import read_run
from alignite.evaluation.report.summary import Status, last_step, sessions, status


def test_a_whole_run(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.name == "run"
    assert run.faults == []
    assert run.train["loss"].steps.tolist() == list(range(1, 61))
    assert run.evaluations["loss"].steps.tolist() == [10, 20, 30, 40, 50, 60]
    assert run.best == {"metric": "eval_loss", "value": 0.95, "step": 30}
    assert [item.step for item in run.checkpoints] == [30, 60]
    assert run.data["train"].counts["used"] == 1241
    assert run.data["train"].truncated["cut to max_length"].examples == ["rows.jsonl:17", "rows.jsonl:230"]
    assert run.samples[0].after == "I am Nabi."
    assert status(run) == Status("Finished", "good", "")
    assert last_step(run) == 60


@pytest.mark.parametrize(
    ("missing", "fault"),
    [
        ("config.yaml", "config.yaml is not there"),
        ("metrics.jsonl", "metrics.jsonl is not there"),
        ("history.jsonl", "history.jsonl is not there"),
        ("data.json", "data.json is not there"),
        ("samples.jsonl", "samples.jsonl is not there"),
        ("checkpoint-60/state.json", "checkpoint-60/state.json is not there"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, missing: str, fault: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / missing).unlink()
    assert read_run(folder).faults == [fault]


def test_a_cut_last_line_and_damaged_lines_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 20, eval_every=0)
    path = folder / "metrics.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    content[4] = b"\xff\xfe{]\n"
    content[6] = b"[1, 2]\n"
    content[8] = b'{"step": true, "loss": 1.0}\n'
    path.write_bytes(b"".join(content)[:-30])
    run = read_run(folder)
    assert run.train["loss"].steps.tolist() == [1, 2, 3, 4, 6, 8, *range(10, 20)]
    assert "the last line of metrics.jsonl is cut" in run.faults[0]
    assert run.faults[1:] == [
        "2 lines of metrics.jsonl cannot be read (first: line 5); left out",
        "1 line of metrics.jsonl without a step; left out",
    ]


def test_of_a_step_that_comes_again_the_last_line_counts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 4, eval_every=0)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 3, "time": BEGAN, "loss": 9.0}) + "\n")
    run = read_run(folder)
    assert run.train["loss"].steps.tolist() == [1, 2, 3, 4]
    assert run.train["loss"].values[2] == 9.0
    assert "comes again" in run.faults[0]


@pytest.mark.parametrize("make", ["nothing", "a file", "an empty folder", "another folder"])
def test_what_is_no_run_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "x"
    if make == "a file":
        path.write_text("")
    elif make != "nothing":
        path.mkdir()
        if make == "another folder":
            (path / "notes.txt").write_text("")
    with pytest.raises(DataError) as caught:
        read_run(path)
    assert caught.value.where == str(path)
    assert "output_dir" in (caught.value.fix or "")


def test_a_pipe_and_a_large_file_are_not_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 4)
    (folder / "samples.jsonl").unlink()
    os.mkfifo(folder / "samples.jsonl")
    os.truncate(folder / "history.jsonl", 65 << 20)
    os.truncate(folder / "config.yaml", 2 << 20)
    run = read_run(folder)
    assert run.faults == [
        "config.yaml is larger than 1 MiB; it was left out",
        "history.jsonl is larger than 64 MiB; it was left out",
        "samples.jsonl is not a file",
    ]


def test_values_of_another_kind_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 4)
    (folder / "config.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nseed: 3\n")
    lines(folder / "metrics.jsonl", [{"step": 1, "loss": "x", "entropy": 10**400, "epoch": 1e400, "a": True, "b": [1]}])
    (folder / "data.json").write_text(json.dumps({"train": {"rows": -1, "used": "x", "dropped": [1]}, "eval": 3}))
    lines(folder / "history.jsonl", [{"event": 3}, {"event": "start", "step": "x", "time": {}, "versions": [1]}])
    (folder / "checkpoint-4" / "state.json").write_text(json.dumps({"best": {"metric": 1, "value": "x"}}))
    run = read_run(folder)
    assert run.config == {"a": ["x", "x"], "seed": 3}
    assert set(run.train) == {"entropy", "epoch"}
    assert run.train["entropy"].finite.values.tolist() == []
    assert run.data["train"].counts == {}
    assert run.best == {}
    assert status(run).word == "Not ended"


def test_the_reports_of_prepared_sets_stand_in_for_data_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", 4)
    (folder / "data.json").unlink()
    (folder / "prepared").mkdir()
    (folder / "prepared" / "report.json").write_text(json.dumps(report(rows=7)))
    run = read_run(folder)
    assert run.data["train"].counts["rows"] == 7
    assert run.faults == []


def test_sessions_and_states(tmp_path: Path) -> None:
    history = [start(), event("save", 2, 5, folder="checkpoint-2"), start("resume", 2, 60)]
    folder = make_run(tmp_path / "run", 4, history=history)
    run = read_run(folder)
    first = sessions(run)[0]
    assert (first.begin.name, first.end, first.seconds) == ("start", None, 5.0)
    assert status(run).why == "it still runs, or the process was killed"
    for outcome, word in (
        ("stopped", "Stopped early"),
        ("preempted", "Preempted"),
        ("failed", "Failed"),
        ("?", "Unknown"),
    ):
        lines(folder / "history.jsonl", [*history, event("end", 4, 70, outcome=outcome, reason="because")])
        assert (status(read_run(folder)).word, status(read_run(folder)).why) == (word, "because")
    (folder / "history.jsonl").write_text("")
    assert status(read_run(folder)).word == "Unknown"
