"""The commands as a user types them, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignite.cli.main import COMMANDS, main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"Say {n}", "answer": "word " * (1 + n % 3)} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path: Path, data: Path, tiny_model_folder: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {tiny_model_folder}\ndata: [{data}]\nprompt_column: question\ncompletion_column: answer\n"
        f"output_dir: {tmp_path / 'run'}\nmax_steps: 3\nlearning_rate: 5e-2\nuse_peft: true\nlora_r: 4\n"
    )
    return path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def result(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = call(capsys, *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_train_generate_merge_generate(
    tmp_path: Path, config: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = result(capsys, "sft", "--config", str(config), "--json")
    assert trained["step"] == 3
    assert trained["data"]["used"] == 9
    assert trained["metrics"]["loss"] > 0
    run = Path(trained["output_dir"])
    assert {path.name for path in run.iterdir()} >= {"adapter_config.json", "config.yaml", "metrics.jsonl"}

    again = result(capsys, "sft", "--config", str(config), "--json")
    assert (again["step"], again["was_finished"]) == (3, True)

    base = ("generate", "--model", str(tiny_model_folder), "--max_new_tokens", "12", "--json")
    plain = result(capsys, *base, "--prompt", "Say 1", "Say 2")["answers"]
    assert [answer["prompt"] for answer in plain] == ["Say 1", "Say 2"]
    adapted = result(capsys, *base, "--adapter", str(run), "--prompt", "Say 1", "Say 2")["answers"]
    assert adapted != plain

    merged = str(tmp_path / "merged")
    code, _, err = call(
        capsys, "merge", "--model", str(tiny_model_folder), "--adapter", str(run), "--output_dir", merged
    )
    assert code == 0, err
    words = ("generate", "--model", merged, "--max_new_tokens", "12", "--json", "--prompt", "Say 1", "Say 2")
    assert result(capsys, *words)["answers"] == adapted


def test_prompts_from_a_file_and_raw(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\ntwo\n")
    words = ("generate", "--model", str(tiny_model_folder), "--max_new_tokens", "3", "--prompt_file", str(file))
    assert [answer["prompt"] for answer in result(capsys, *words, "--json")["answers"]] == ["one", "two"]
    code, out, _ = call(capsys, *words, "--raw")
    assert code == 0
    assert out


def test_a_run_without_peft_leaves_a_model_that_generates(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "full")
    trained = result(capsys, "sft", "--config", str(config), "--use_peft", "false", "--output_dir", out, "--json")
    assert trained["step"] == 3
    assert result(capsys, "generate", "--model", out, "--prompt", "hi", "--max_new_tokens", "2", "--json")["answers"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
        code, out, _ = call(capsys, *words)
        assert code == 0
        assert "alignite" in out
    assert call(capsys)[0] == 2


def test_the_doctor_is_content_and_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = result(capsys, "doctor", "--json")
    assert found["problems"] == []
    assert found["rust_core"] == "works"
    assert found["packages"]["torch"]
    code, out, _ = call(capsys, "doctor")
    assert code == 0
    assert "all is well" in out


def test_the_doctor_names_what_is_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from alignite.cli import doctor

    def broken() -> str:
        raise OSError("no space left")

    monkeypatch.setattr(doctor, "_writable", broken)
    code, out, _ = call(capsys, "doctor")
    assert code == 6
    assert "no space left" in out
    assert "fix: " in out
    monkeypatch.setattr(doctor, "_rust_core", broken)
    assert call(capsys, "doctor")[0] == 70


def test_as_a_program_it_survives_a_closed_pipe(tiny_model_folder: Path) -> None:
    command = [sys.executable, "-m", "alignite", "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr


def test_an_unexpected_error_is_one_line_and_can_be_traced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignite.cli import doctor

    def bug(_: object) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(doctor, "run", bug)
    code, _, err = call(capsys, "doctor")
    assert code == 70
    assert "ALIGNITE_TRACEBACK=1" in err
    monkeypatch.setenv("ALIGNITE_TRACEBACK", "1")
    main(["doctor"])
    assert "Traceback" in capsys.readouterr().err
