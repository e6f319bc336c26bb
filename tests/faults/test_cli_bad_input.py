"""What users get wrong: each fault ends with its exit code and words that say what, where and how to mend it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alignite.cli.main import main

GOOD = json.dumps({"prompt": "a", "completion": "b"}) + "\n"


def write(path: Path, content: bytes | str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(words)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "bug in alignite" not in err
    return code, err


DATA_FAULTS: dict[str, tuple[bytes | str, str]] = {
    "empty file": ("", "rows.jsonl"),
    "blank lines only": ("\n\n", "rows.jsonl"),
    "malformed row": (GOOD + '{"prompt": "a", "completion"\n', "rows.jsonl:2"),
    "row that is no object": (GOOD + "[1]\n", "rows.jsonl:2"),
    "missing column": (GOOD + '{"prompt": "a", "answer": "b"}\n', "rows.jsonl:2"),
    "columns of no format": ('{"left": "a"}\n', "rows.jsonl:1"),
    "not UTF-8": (GOOD.encode() + b'{"prompt": "\xff", "completion": "b"}\n', "rows.jsonl:2"),
    "unknown role": ('{"messages": [{"role": "robot", "content": "x"}]}\n', "rows.jsonl:1"),
    "content of a wrong type": ('{"messages": [{"role": "user", "content": 5}]}\n', "rows.jsonl:1"),
    "lone surrogate": ('{"prompt": "\\ud800", "completion": "b"}\n', "rows.jsonl:1"),
    "deep nesting": ('{"a": ' * 5000 + "\n", "rows.jsonl:1"),
    "every token masked": ('{"messages": [{"role": "user", "content": "x"}]}\n', "rows.jsonl:1"),
}


@pytest.mark.parametrize("fault", DATA_FAULTS)
def test_bad_rows(fault: str, tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, where = DATA_FAULTS[fault]
    data = write(tmp_path / "rows.jsonl", content)
    words = ("--model", str(tiny_model_folder), "--data", data, "--output_dir", str(tmp_path / "run"))
    code, err = run(capsys, "sft", *words, "--on_bad_row", "error")
    assert code == 3, err
    assert where in err
    assert "fix: " in err


def test_a_damaged_gzip_file(tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress((GOOD * 2000).encode())
    for name, content in (("cut.jsonl.gz", whole[: len(whole) // 2]), ("noise.jsonl.gz", whole[:10] + b"\xff" * 50)):
        words = ("--model", str(tiny_model_folder), "--output_dir", str(tmp_path / "run"))
        code, err = run(capsys, "sft", *words, "--data", write(tmp_path / name, content))
        assert code == 3, err
        assert name in err


def broken_template(folder: Path) -> None:
    write(folder / "chat_template.jinja", "{% for m in messages %}{{ m.content }")


def raising_template(folder: Path) -> None:
    write(folder / "chat_template.jinja", "{{ raise_exception('users must come first') }}")


def no_template(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    write(folder / "tokenizer_config.json", json.dumps(settings))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def large_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary.update({f"extra{n}": len(vocabulary) + n for n in range(100)})
    write(folder / "tokenizer.json", json.dumps(tokenizer))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    write(folder / "model.safetensors", content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (broken_template, 3, "template"),
        (raising_template, 3, "users must come first"),
        (no_template, 3, "template"),
        (no_tokenizer, 4, "tokenizer.json"),
        (large_tokenizer, 4, "tokenizer"),
        (no_weights, 4, "safetensors"),
        (cut_weights, 4, "model"),
    ],
)
def test_damaged_model_folders(
    damage: Callable[[Path], None], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tiny_model import make_model

    folder = tmp_path / "model"
    make_model(folder)
    damage(folder)
    data = write(tmp_path / "rows.jsonl", GOOD * 3)
    found, err = run(capsys, "sft", "--model", str(folder), "--data", data, "--output_dir", str(tmp_path / "run"))
    assert found == code, err
    assert words in err
    assert "fix: " in err


def test_an_output_folder_that_cannot_be_written(
    tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", GOOD)
    for out in (str(tmp_path / "rows.jsonl" / "run"), "/proc/alignite-run"):
        words = ("--model", str(tiny_model_folder), "--data", data, "--output_dir", out)
        code, err = run(capsys, "sft", *words)
        assert code == 6, err
        assert out in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["frobnicate"], 2, "unknown command"),
        (["stf"], 2, "did you mean 'sft'"),
        (["sft"], 2, "no model is given"),
        (["sft", "--model", "org/name", "--data", "x", "--output_dir", "y"], 4, "HF_HUB_OFFLINE"),
        (["sft", "--device", "tpu", "--model", "m"], 2, "device is 'tpu'"),
        (["generate", "--model", "org/name", "--prompt", "x"], 4, "HF_HUB_OFFLINE"),
        (["generate", "--model", "m", "--prompt", "x", "--device", "foo"], 2, "device is 'foo'"),
        (["generate", "--model", "m"], 2, "no prompt is given"),
        (["generate", "--model", "m", "--prompt", "x", "--top_p", "2"], 2, "top_p is 2"),
        (["generate", "--model", "m", "--prompt", "--hello"], 2, "--option=VALUE"),
        (["generate", "--model", "m", "--prompt_file", "/no/such/file"], 3, "/no/such/file"),
        (["merge", "--model", "m"], 2, "adapter"),
        (["import-gguf", "--gguf", "/no/such.gguf", "--output_dir", "x"], 4, "/no/such.gguf"),
        (["import-gguf"], 2, "gguf"),
    ],
)
def test_bad_command_lines(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, err = run(capsys, *words)
    assert found == code, err
    assert said in err
    assert err.startswith("error: ")


def test_a_gpu_that_is_not_there(
    tmp_path: Path,
    tiny_model_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = str(tiny_model_folder)
    data = write(tmp_path / "rows.jsonl", GOOD)
    for words in (
        ["generate", "--model", model, "--prompt", "x", "--device", "cuda"],
        ["sft", "--model", model, "--data", data, "--output_dir", str(tmp_path / "run"), "--device", "cuda:3"],
    ):
        code, err = run(capsys, *words)
        assert code == 6, err
        assert "no device" in err


def test_files_that_are_not_there(tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--model", str(tiny_model_folder), "--output_dir", str(tmp_path / "run"))
    for data in (str(tmp_path / "none.jsonl"), str(tmp_path / "*.jsonl")):
        code, err = run(capsys, "sft", *words, "--data", data)
        assert code == 3, err
        assert data in err
    model = str(tiny_model_folder)
    code, err = run(capsys, "generate", "--model", model, "--adapter", str(tmp_path), "--prompt", "x")
    assert code == 4, err
    assert "adapter" in err
