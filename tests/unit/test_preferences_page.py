"""docs/preferences.md, from its first line that can be typed to its last, on a tiny model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from alignite.cli.main import main

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "preferences.md").read_text()
TRAIN = ("dpo", "slic", "preference", "reward")


def test_everything_that_can_be_typed_works(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tiny_model_folder)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    ran = []
    for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        if kind == "python":
            exec(text, {})
        for line in text.splitlines() if kind == "" else ():
            command, *words = shlex.split(line)[1:]
            few = ["--max_steps", "2", "--max_length", "256"] if command in TRAIN else []
            few += ["--lora_r", "4"] if "--config" in words and command in TRAIN else []
            assert main([command, *words, *few]) == 0, capsys.readouterr().err
            ran.append(command)
    assert {"preview", "check", "dpo", "generate", "reward", "evaluate"} <= set(ran)
    assert (tmp_path / "runs" / "dpo" / "report.html").is_file()
