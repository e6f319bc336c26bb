"""``alignite instruct``: a task file to rows, and what is printed about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignite.cli.main import main


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rows = [{"q": f"{n}+1", "a": str(n + 1)} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"q": "x"}]))
    (tmp_path / "flan.yaml").write_text('task: sums\npatterns:\n- ["{q}=", "{a}"]\n- ["What gives {a}?", "{q}"]\n')
    path = tmp_path / "task.yaml"
    path.write_text(f"data: {tmp_path / 'rows.jsonl'}\ntemplates: {tmp_path / 'flan.yaml'}\n")
    return path


def test_rows_are_written_and_counted(task: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = task.parent / "out" / "rows.jsonl"
    words = ["instruct", "--task", str(task), "--output", str(output), "--on_bad_row", "skip"]
    assert main([*words, "--seed", "2"]) == 0
    told = capsys.readouterr().out
    assert "40 instances of 41 rows" in told
    assert "zs_noopt" in told
    assert 'not made:\n          1  no column "a"' in told
    first = output.read_bytes()
    rows = [json.loads(line) for line in first.splitlines()]
    assert len(rows) == 40
    assert {row["task"] for row in rows} == {"sums"}
    assert main([*words, "--seed", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert output.read_bytes() == first
    assert (report["rows"], report["instances"], report["output"]) == (41, 40, str(output))
    assert main([*words, "--seed", "3", "--max_examples", "5"]) == 0
    assert len(output.read_bytes().splitlines()) == 5


def test_demonstrations_are_counted_by_the_models_tokenizer(
    task: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task.write_text(task.read_text() + "styles: {fs_noopt: 1}\nfew_shot: {k: [1, 4], max_tokens: 60}\n")
    output = task.parent / "rows.out.jsonl"
    words = ["instruct", "--task", str(task), "--output", str(output), "--on_bad_row", "skip"]
    assert main(words) == 2
    assert "--model" in capsys.readouterr().err
    assert main([*words, "--model", str(tiny_model_folder)]) == 0
    rows = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert rows
    assert all(row["shots"] >= 1 and len(row["prompt"].encode()) <= 60 for row in rows)


@pytest.mark.parametrize(
    ("change", "code", "what"),
    [
        (["--task", "none.yaml"], 2, "cannot be read"),
        (["--output", "rows.txt"], 2, "must end with .jsonl"),
        (["--seed", "-1"], 2, "seed is -1"),
        ([], 3, 'no column "a"'),
    ],
)
def test_what_cannot_be_done_leaves_no_file(
    change: list[str], code: int, what: str, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"--task": str(task), "--output": str(task.parent / "new.jsonl")} | dict(
        zip(change[::2], change[1::2], strict=True)
    )
    assert main(["instruct", *(word for pair in words.items() for word in pair)]) == code
    assert what in capsys.readouterr().err
    assert not list(task.parent.glob("*new.jsonl*"))
