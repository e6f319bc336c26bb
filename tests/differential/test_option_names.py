"""Every option of TRL's SFT, transformers' Trainer and PEFT's LoRA is ours too, or answered with what is."""

from __future__ import annotations

from dataclasses import fields

import pytest

from alignite.cli.options import parse
from alignite.config import GenerateConfig, SFTConfig
from alignite.config.elsewhere import ELSEWHERE, NOTHING, OURS
from alignite.errors import ConfigError

KNOWN = {item.name for item in fields(SFTConfig)}


def names_elsewhere() -> dict[str, str]:
    import peft
    import transformers
    import trl

    classes = (trl.SFTConfig, trl.ModelConfig, trl.ScriptArguments, transformers.TrainingArguments, peft.LoraConfig)
    return {item.name: owner.__name__ for owner in classes for item in fields(owner)}


def test_every_option_of_theirs_is_an_option_of_ours_or_answered() -> None:
    theirs = names_elsewhere()
    assert len(theirs) > 180
    assert {"bf16", "report_to", "lora_r", "dataset_name", "padding_free", "use_dora"} <= theirs.keys()
    unanswered = {name: owner for name, owner in theirs.items() if name not in KNOWN and name not in ELSEWHERE}
    assert not unanswered


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_an_answer_is_given_on_the_command_line_and_names_what_there_is(name: str) -> None:
    assert name not in KNOWN
    with pytest.raises(ConfigError, match=f"unknown option --{name}") as error:
        parse(SFTConfig, "alignite sft", "test", [f"--{name}", "1"])
    fix = str(error.value.fix)
    ours, _, rest = OURS.get(name, "").partition(":")
    if ours in KNOWN:
        assert fix == f"alignite calls this --{ours}" + (f":{rest}" if rest else "")
    elif name in OURS:  # the name of another command's option, or of a method that is still to come
        assert ours in {item.name for item in fields(GenerateConfig)} | {"max_completion_length"}
    else:
        assert fix.startswith("leave it out: ")
        assert len(fix) > 30


def test_a_name_stands_once() -> None:
    flat = [name for names in NOTHING.values() for name in names.split()]
    assert len(flat) == len(set(flat))
    assert not set(flat) & OURS.keys()
    assert list(ELSEWHERE) == [*OURS, *flat]
