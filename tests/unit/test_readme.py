"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from alignite.cli.main import main

README = (Path(__file__).parent.parent.parent / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == kind]


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the names that the README uses, on a tiny model and a few rows."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tiny_model_folder)
    text = "".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(8))
    (tmp_path / "gsm8k_train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "gsm8k_test.jsonl").write_text(text)
    feedback = {
        "pairs": {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"},
        "labelled": {"prompt": "1 + 1?", "completion": "2", "label": True},
        "steps": {"prompt": "1 + 1?", "completions": ["I add.", "2"], "labels": [1, 1]},
    }
    for name, row in feedback.items():
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_lines_of_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    exec(code.replace("max_steps=100", "max_steps=2"), {})
    assert "'loss':" in capsys.readouterr().out
    assert (folder / "runs" / "gsm8k" / "adapter_model.safetensors").is_file()


def test_the_yaml_run_and_the_commands_after_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = blocks("yaml")
    (folder / "run.yaml").write_text(text.replace("max_steps: 100", "max_steps: 2"))
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("alignite ")]
    words = [shlex.split(line, comments=True)[1:] for line in commands]
    first = ["preview", "check", "sft", "report", "generate", "merge"]
    feedback = ["dpo", "preference", "reward", "evaluate", "prm"]
    assert [command for command, *_ in words] == first + feedback
    for command, *rest in words:
        few = ["--max_steps", "2"] if command in feedback and command != "evaluate" else []
        assert main([command, *rest, *few]) == 0, capsys.readouterr().err
    assert (folder / "models" / "smollm2-gsm8k" / "model.safetensors").is_file()
