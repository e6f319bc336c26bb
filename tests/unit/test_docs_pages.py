"""The pages of the first hours, read as a user does: their code and commands work in the order in which they stand."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import pytest

from alignite.cli.main import main

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft  # noqa: F401 - the pages import it, and its import warns

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
# PEFT uses a name that transformers is about to drop; every other warning is an error.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the names that the pages use."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tiny_model_folder)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def walk(page: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a page with fewer steps; gives what its blocks printed. ``sh`` blocks need what a test has not."""
    printed = []
    for kind, text in BLOCK.findall((ROOT / "docs" / page).read_text()):
        text = re.sub(r"(max_steps(?:=|: ))\d+", r"\g<1>2", text)
        if kind == "python":
            exec(text, {"__name__": page})
        elif kind == "yaml":
            name = re.match(r"# (\S+\.yaml)\n", text)
            assert name, f"{page}: a YAML block does not say which file it is"
            Path(name[1]).write_text(text)
        elif kind == "":
            for line in text.replace("\\\n", "").splitlines():
                words = shlex.split(
                    re.sub(r"--total \d+", "--total 300", re.sub(r"--max_steps \d+", "--max_steps 4", line))
                )
                assert words[0] == "alignite", f"{page}: {line}"
                assert main(words[1:]) == 0, f"{page}: {line}\n{capsys.readouterr().err}"
        printed.append(capsys.readouterr().out)
    return printed


def test_get_started_then_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = walk("get_started.md", capsys)
    assert re.search(r"^\d+\.\d+$", printed[-1].strip())  # result.metrics["eval_loss"]
    assert (folder / "runs" / "first" / "adapter_model.safetensors").is_file()
    walk("export_and_serve.md", capsys)
    assert (folder / "models" / "merged" / "model.safetensors").is_file()


def test_prepare_your_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = walk("prepare_data.md", capsys)
    assert any("2 rows, 2 used" in text for text in printed)
    assert (folder / "faq.csv").read_text().count("\n") == 3
    assert [len(piece) for piece in re.findall(r'"completion": "(.*)"', (folder / "texts.jsonl").read_text())]
    assert (folder / "runs" / "texts" / "model.safetensors").is_file()


def test_prepare_a_million(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("raw/a.jsonl.zst", "raw/b.jsonl.zst", "tests/gsm8k.jsonl", "more.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        rows = [{"prompt": f"What does {name} say of {n}?", "completion": f"{n} is {n} " * 3} for n in range(200)]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"a": {"data": "raw/a.jsonl.zst", "weight": 2}, "b": {"data": "raw/b.jsonl.zst", "weight": 1}}
    (folder / "mix.yaml").write_text(json.dumps({"sources": sources}))
    printed = walk("prepare_a_million.md", capsys)
    assert any("windows in cleaned/validation" in text for text in printed)
    assert json.loads((folder / "merged" / "report.json").read_text())["rows"] == 600
    assert (folder / "prepared_megatron_labels.idx").is_file()


def test_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2" in [text.strip() for text in walk("train.md", capsys)]


def test_preview(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rows.jsonl").write_text('{"prompt": "Say 1.", "completion": "1."}\n' * 3)
    assert "'1' True" in walk("preview.md", capsys)[-1]


def test_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "chat.jsonl").write_text('{"prompt": "Say 1.", "completion": "1."}\n' * 8)
    walk("resume.md", capsys)
    assert (folder / "runs" / "long" / "checkpoint-4").is_dir()
