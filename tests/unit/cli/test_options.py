from __future__ import annotations

from pathlib import Path

import pytest

from alignite.cli.options import parse
from alignite.config import SFTConfig
from alignite.errors import ConfigError, UsageError


def sft(*words: str) -> SFTConfig:
    config, _ = parse(SFTConfig, "alignite sft", "test", words)
    assert isinstance(config, SFTConfig)
    return config


def test_every_field_is_an_option_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        sft("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in SFTConfig().to_dict():
        assert f"--{name} " in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_every_way_to_write_a_value() -> None:
    config = sft("--learning_rate", "1e-4", "--max_steps=7", "--use_peft", "--shuffle", "false", "--data", "a", "b")
    assert (config.learning_rate, config.max_steps, config.use_peft, config.shuffle) == (1e-4, 7, True, False)
    assert config.data == ["a", "b"]
    assert sft("--data", "a", "--data", "b", "c").data == ["a", "b", "c"]
    assert sft("--use_peft", "true", "--model=--odd").model == "--odd"


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-4\nmax_steps: 3\ndata: [x, y]\nuse_peft: true\n")
    config = sft("--config", str(file), "--max_steps", "9", "--data", "z")
    assert (config.learning_rate, config.max_steps, config.use_peft, config.data) == (1e-4, 9, True, ["z"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--learning-rate", "1"], "--learning_rate"),
        (["--learnin_rate", "1"], "did you mean --learning_rate?"),
        (["--learning", "1"], "unknown option --learning"),
        (["--bf16"], "dtype: bfloat16"),
        (["--max_steps", "1", "--max_steps=2"], "--max_steps stands twice"),
        (["--max_steps"], "expected one argument"),
        (["stray"], "stray"),
        (["--max_steps", "many"], "max_steps is 'many'"),
        (["--model", "--hello"], "--option=VALUE"),
    ],
)
def test_what_cannot_be_taken_is_said(words: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        sft(*words)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("model: x\nlearning_rat: 1\n", 2, "learning_rate"),
        ("model: x\n\nlearning_rate: abc\n", 3, "it must be a number"),
        ("model: x\nmodel: y\n", 2, "twice"),
        ("model: [x\n", 2, "not YAML"),
        ("- model\n", 0, "not a mapping"),
        ("data:\n  nested: 1\n", 1, "data"),
    ],
)
def test_faults_of_a_config_file_are_located(tmp_path: Path, text: str, line: int, expected: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        sft("--config", str(file))
    assert expected in str(error.value)
    assert str(error.value).startswith(f"{file}:{line}" if line else str(file))


def test_a_config_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        sft("--config", str(tmp_path / "none.yaml"))
    (tmp_path / "empty.yaml").write_text("")
    assert sft("--config", str(tmp_path / "empty.yaml")).to_dict() == SFTConfig().to_dict()
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(ConfigError, match="not YAML"):
        sft("--config", str(tmp_path / "latin.yaml"))
