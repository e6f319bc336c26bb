"""``alignite convert`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignite.cli.main import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1, "id": "x"},
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        {"prompt": "q", "chosen": "c", "rejected": "d"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_it_says_what_became_of_every_row(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    words = ["convert", "--data", str(data), "--to", "unpaired", "--output", str(output), "--on_bad_row", "skip"]
    assert main(words) == 0
    printed = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert printed[:2] == [["3", "rows", "in", "preference"], ["4", "rows", "written", "unpaired"]]
    assert printed[2:4] == [["1", "rows", "lost", "column id"], ["1", "rows", "lost", "margin"]]
    assert printed[4][0] == "1"
    assert "chosen and rejected are the same (first:" in printed[4][3]
    assert len(output.read_text().splitlines()) == 4
    assert main([*words, "--json"]) == 6  # the file is there
    output.unlink()
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["written"], found["lost"], found["to"]) == (
        3,
        4,
        {"column id": 1, "margin": 1},
        "unpaired",
    )


def test_refusals(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "out.jsonl")]
    for words, code, said in [
        (["--to", "unpaired", *out], 2, "no data is given"),
        (["--data", str(data), *out], 2, "no to is given"),
        (["--data", str(data), "--to", "unpaired"], 2, "no output is given"),
        (["--data", str(data), "--to", "unpaird", *out], 2, "did you mean"),
        (["--data", str(data), "--to", "unpaired", "--output", "x.csv"], 2, ".jsonl"),
        (["--data", str(data), "--to", "unpaired", *out, "--columns", "prompt"], 2, "NAME=COLUMN"),
        (["--data", str(data), "--to", "unpaired", *out, "--columns", "prompt=nowhere"], 3, "no row has a column"),
        (["--data", str(data), "--to", "unpaired", *out, "--format", "alpacca"], 2, "did you mean"),
        (["--data", str(data), "--to", "unpaired", *out], 3, f"{data}:2"),
    ]:
        assert main(["convert", *words]) == code, words
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]
