"""A tokenizer from a stranger: a typed error or a bad row, never a signal, a panic or all of the memory."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from alignite.config import SFTConfig
from alignite.data import ChatTokenizer
from alignite.errors import AligniteError, TokenizerError

Spec = dict[str, Any]


def spec_of(folder: Path) -> Spec:
    spec: Spec = json.loads((folder / "tokenizer.json").read_text())
    return spec


def tokenizer(spec: Spec | bytes) -> ChatTokenizer:
    content = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
    return ChatTokenizer(Path("model"), content, None, {}, (0,), 0)


def regex_splitter(pattern: str) -> Spec:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split, byte_level]}


def replace(times: int, content: str) -> Spec:
    steps = [{"type": "Replace", "pattern": {"String": "a"}, "content": content}] * times
    return {"type": "Sequence", "normalizers": steps}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda spec: spec.update(normalizer=replace(6, "a" * 1000)), "lengthen"),
        (
            lambda spec: spec.update(normalizer={"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 99}),
            "len",
        ),
        (lambda spec: spec.update(pre_tokenizer=regex_splitter("(")), "expression|pattern|match"),
        (lambda spec: spec["model"]["vocab"].update({"doubled": 7}), "one id"),
        (lambda spec: spec["added_tokens"][0].update(id=5), "id"),
        (lambda spec: spec["model"].update(merges=[["nobody", "x"]]), "nobody"),
        (lambda spec: spec["model"]["vocab"].update({"a": -1}), "."),
        (lambda spec: spec.pop("model"), "."),
        (lambda spec: spec.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "gone"}), "."),
        (lambda spec: spec.update(pre_tokenizer={"type": "FixedLength", "length": 0}), "."),
    ],
)
def test_a_broken_tokenizer_is_a_typed_error(change: Callable[[Spec], Any], why: str, tiny_model_folder: Path) -> None:
    spec = spec_of(tiny_model_folder)
    change(spec)
    with pytest.raises(TokenizerError) as raised:
        tokenizer(spec).encode("a" * 50)
    assert raised.value.fix
    assert re.search(why, f"{raised.value.what} {raised.value.why}")


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b'{"model": {}}', b'{"a":' * 100_000, b"\xff{}"])
def test_what_is_no_tokenizer_is_a_typed_error(content: bytes) -> None:
    with pytest.raises(TokenizerError):
        tokenizer(content).encode("a")


@pytest.mark.parametrize(
    "extra",
    [
        {
            "padding": {
                "strategy": {"Fixed": 4_000_000_000},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "x",
            }
        },
        {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 9}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "gone", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
)
def test_what_is_not_for_us_is_left_out(extra: Spec, tiny_model_folder: Path) -> None:
    spec = spec_of(tiny_model_folder)
    text = "Ten words, more or less; they come through whole."
    assert tokenizer(spec | extra).encode(text) == tokenizer(spec).encode(text)


def test_a_pattern_that_gives_up_is_a_bad_row_and_soon(tiny_model_folder: Path) -> None:
    spec = spec_of(tiny_model_folder) | {"pre_tokenizer": regex_splitter(r"(x+x+)+y")}
    start = time.monotonic()
    with pytest.raises(AligniteError, match="the tokenizer fails on this text"):
        tokenizer(spec).encode("x" * 3000)
    assert tokenizer(spec).encode("fine")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("file", "named"), [("tokenizer.model", "SentencePiece"), ("tekken.json", "Mistral"), ("qwen.tiktoken", "tiktoken")]
)
def test_a_folder_with_another_vocabulary_says_how_to_convert_it(
    file: str, named: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    folder = copytree(tiny_model_folder, tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / file).write_bytes(b"x")
    with pytest.raises(TokenizerError) as raised:
        ChatTokenizer.from_folder(folder)
    assert named in str(raised.value.why)
    assert "save_pretrained" in str(raised.value.fix)


def test_a_tokenizer_that_is_not_the_models_is_refused(tiny_model_folder: Path) -> None:
    with pytest.raises(TokenizerError, match="largest id"):
        ChatTokenizer.from_folder(tiny_model_folder).check_fits(2, {})
    assert ChatTokenizer.from_folder(tiny_model_folder).preparer(SFTConfig()).tokenizer_backend == ("fast", None)
