from __future__ import annotations

import math
from typing import Any

import pytest

from alignite.config import GenerateConfig, SFTConfig, TrainingConfig, coerce
from alignite.errors import ConfigError


def message(error: pytest.ExceptionInfo[ConfigError]) -> str:
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", "abc"),
        ("learning_rate", None),
        ("max_steps", 1.5),
        ("max_steps", "1e20x"),
        ("max_steps", math.nan),
        ("max_steps", math.inf),
        ("max_steps", "nan"),
        ("max_steps", True),
        ("use_peft", "perhaps"),
        ("use_peft", 1),
        ("output_dir", ["a"]),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_name_and_what_it_must_be(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        SFTConfig(**{name: value})
    assert message(error).startswith(f"{name} is {value!r}")
    assert "fix: it must be" in message(error)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (float, "1e-4", 1e-4),
        (int, "1e3", 1000),
        (int, 8.0, 8),
        (int, "1e20", 10**20),
        (int, str(2**60 + 1), 2**60 + 1),
        (bool, "True", True),
        (bool, False, False),
        (str, 7, "7"),
        (int | None, "none", None),
        (str | None, None, None),
        (list[str], "one", ["one"]),
        (list[str], ("a", 1), ["a", "1"]),
    ],
)
def test_text_is_read_as_the_command_line_and_yaml_write_it(kind: object, text: object, value: object) -> None:
    found = coerce("x", kind, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("config", "name", "value"),
    [
        (SFTConfig, "learning_rate", -1e-4),
        (SFTConfig, "learning_rate", math.nan),
        (SFTConfig, "max_grad_norm", math.inf),
        (SFTConfig, "per_device_train_batch_size", 0),
        (SFTConfig, "micro_batch_tokens", -1),
        (SFTConfig, "num_train_epochs", 0),
        (SFTConfig, "max_steps", 0),
        (SFTConfig, "max_steps", -2),
        (SFTConfig, "adam_beta2", 1.0),
        (SFTConfig, "lora_dropout", 1.0),
        (SFTConfig, "max_length", 1),
        (SFTConfig, "device", "gpu"),
        (SFTConfig, "device", "cuda:"),
        (SFTConfig, "device", "cpu:0"),
        (SFTConfig, "lr_scheduler_type", "steps"),
        (SFTConfig, "packing", "ffd"),
        (SFTConfig, "prompt_column", "question"),
        (GenerateConfig, "max_new_tokens", 0),
        (GenerateConfig, "temperature", -0.5),
        (GenerateConfig, "top_p", 0.0),
        (GenerateConfig, "top_p", 1.5),
        (GenerateConfig, "top_k", -1),
        (GenerateConfig, "repetition_penalty", 0.0),
        (GenerateConfig, "batch_size", 0),
        (GenerateConfig, "device", "foo"),
    ],
)
def test_a_value_out_of_range_is_named_once_with_what_is_allowed(
    config: type[SFTConfig], name: str, value: object
) -> None:
    with pytest.raises(ConfigError) as error:
        config(**{name: value}).validate()
    first, fix = message(error).split("\n")
    assert first.count(name) == 1
    assert fix.startswith("  fix: ")


def test_the_defaults_are_valid_and_survive_yaml() -> None:
    import yaml

    config = SFTConfig(learning_rate="3e-4", data=["a", "b"], template_date="2026-01-02")
    config.validate()
    again = SFTConfig.from_dict(yaml.safe_load(config.to_yaml()))
    assert again.to_dict() == config.to_dict()
    GenerateConfig().validate()


def test_lists_of_two_configs_are_not_shared() -> None:
    first = SFTConfig()
    first.data.append("x")
    assert SFTConfig().data == []


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("bf16", "dtype: bfloat16"),
        ("report_to", "trackers"),
        ("trust_remote_code", "leave it out: code from a model's repository is never run"),
        ("model_revision", "model: ORG/NAME@REVISION"),
        ("max_seq_length", "max_length"),
        ("resume_from_checkpoint", "resume"),
        ("per-device-train-batch-size", "per_device_train_batch_size"),
        ("learning_rte", "learning_rate"),
    ],
)
def test_an_unknown_option_is_answered_with_ours(name: str, answer: str) -> None:
    with pytest.raises(ConfigError, match="unknown option") as error:
        SFTConfig(**{name: 1})
    assert answer in message(error)


def test_no_answer_names_an_option_that_the_config_lacks() -> None:
    with pytest.raises(ConfigError) as error:
        GenerateConfig(response_length=3)
    assert "max_completion_length" not in message(error)
    with pytest.raises(ConfigError) as error:
        TrainingConfig(zzz=3)
    assert "--help" in message(error)


@pytest.mark.parametrize("other", [{"format": "alpaca"}, {"columns": ["prompt=q"]}])
def test_columns_that_are_named_twice_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="are given together"):
        SFTConfig(prompt_column="q", completion_column="a", **other).validate()
