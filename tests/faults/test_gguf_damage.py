"""GGUF files that are damaged, or hold what is not read: typed errors, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from alignite.errors import AligniteError, GgufError, ResourceError, TokenizerError
from alignite.models.gguf import import_gguf
from alignite.models.loading import load_model

WIDTH, INNER, HEADS, KV_HEADS, LAYERS = 32, 64, 4, 2, 2
TOKENS = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]


def tensors() -> dict[str, Any]:
    source = np.random.default_rng(0)
    kv = WIDTH * KV_HEADS // HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for n in range(LAYERS):
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (WIDTH,),
            "ffn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv, WIDTH),
            "attn_v": (kv, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        shapes |= {f"blk.{n}.{name}.weight": shape for name, shape in layer.items()}
    return {name: source.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(path: Path, change: dict[str, Any] | None = None, weights: dict[str, Any] | None = None) -> Path:
    """A whole tiny Llama; ``change`` overrides metadata by key, None leaves a key out."""
    values: dict[str, Any] = {
        "llama.block_count": LAYERS,
        "llama.context_length": 64,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] + [1] * (len(TOKENS) - 1),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 0,
    }
    values |= change or {}
    writer = gguf.GGUFWriter(str(path), values.pop("architecture", "llama"))
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
    for name, tensor in (tensors() if weights is None else weights).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_tiny_file_is_imported_and_runs(tmp_path: Path) -> None:
    report = import_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert report.tensors == 2 + 9 * LAYERS
    model: Any = load_model(tmp_path / "model")
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, len(TOKENS))
    expected = tensors()["blk.1.ffn_up.weight"]
    assert torch.equal(model.model.layers[1].mlp.up_proj.weight, torch.from_numpy(expected))
    import_gguf(tmp_path / "tiny.gguf", tmp_path / "model")  # a second time replaces the first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "qwen2"}, "qwen2"),
        ({"llama.rope.scaling.type": "yarn"}, "rotary"),
        ({"llama.attention.head_count_kv": 3}, "head counts"),
        ({"llama.embedding_length": 48}, "config asks for"),
        ({"llama.block_count": 3}, "missing: blk.2"),
        ({"llama.block_count": None}, "block_count"),
        ({"llama.expert_count": 8}, "experts"),
        ({"tokenizer.ggml.model": "llama"}, "byte-level BPE"),
        ({"tokenizer.ggml.pre": "superbpe"}, "smollm"),
        ({"tokenizer.ggml.pre": None}, "smollm"),
        ({"tokenizer.ggml.token_type": [1]}, "token types"),
        ({"tokenizer.ggml.merges": ["ab"]}, "not two tokens"),
    ],
)
def test_what_is_not_read_is_said_and_nothing_is_written(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "tiny.gguf", change)
    with pytest.raises((GgufError, TokenizerError)) as error:
        import_gguf(path, tmp_path / "model")
    assert said in str(error.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["tiny.gguf"]


def test_tensors_that_are_missing_or_strange_are_named(tmp_path: Path) -> None:
    weights = tensors()
    weights["blk.0.surprise.weight"] = weights.pop("blk.0.attn_q.weight")
    with pytest.raises(GgufError, match=r"missing: blk\.0\.attn_q\.weight; not known: blk\.0\.surprise"):
        import_gguf(write(tmp_path / "tiny.gguf", weights=weights), tmp_path / "model")


def test_a_tensor_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "k.gguf"), "llama")
    blocks = np.zeros((2, 210), dtype=np.uint8)
    writer.add_tensor("blk.0.attn_q.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(GgufError) as error:
        import_gguf(tmp_path / "k.gguf", tmp_path / "model")
    assert "blk.0.attn_q.weight" in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_cut_file(tmp_path: Path, share: float) -> None:
    content = write(tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GgufError) as error:
        import_gguf(tmp_path / "cut.gguf", tmp_path / "model")
    assert "cut.gguf" in str(error.value)
    assert not (tmp_path / "model").exists()


def test_files_that_are_no_gguf(tmp_path: Path) -> None:
    for name, content in (
        ("text.gguf", b"hello, this is text " * 10),
        ("big.gguf", b"GGUF" + (3).to_bytes(4, "big") * 9),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GgufError, match=name):
            import_gguf(tmp_path / name, tmp_path / "model")
    for missing in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(AligniteError):
            import_gguf(missing, tmp_path / "model")


def test_folders_that_cannot_be_the_result(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep me")
    for target in (tmp_path / "full", path, path / "below", Path("/proc/alignite-model")):
        with pytest.raises(ResourceError):
            import_gguf(path, target)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "keep me"
