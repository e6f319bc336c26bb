"""GGUF files of the Llama family to folders that transformers loads. Needs neither torch nor transformers."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignite.errors import GgufError, ResourceError, UsageError
from alignite.files import cannot_write, sync_file, sync_folder
from alignite.native.gguf import Gguf, gguf_tokenizer_json

_INSTEAD = "use the model's transformers folder instead"
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class ImportReport:
    """What was written: the folder, the number of tensors and parameters, GGUF types with their counts, seconds."""

    output_dir: str
    tensors: int
    parameters: int
    types: dict[str, int]
    seconds: float


def import_gguf(
    gguf: str | Path,
    output_dir: str | Path,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Write config.json, model.safetensors, tokenizer.json, tokenizer_config.json, chat_template.jinja.

    The tokenizer honours ``tokenizer.ggml.pre``, so its ids are llama.cpp's; transformers' own import ignores it.

    Args:
        gguf: a file of architecture ``llama`` with tensors of type F32, F16, BF16, Q8_0, Q4_0 or Q4_1.
        output_dir: a folder that does not exist yet, or is empty, or holds an earlier import.
        dtype: float32, bfloat16 or float16.
        progress: called with tensors done and in all.

    Raises:
        GgufError: the file is damaged, or holds an architecture, tensor, tensor type or tokenizer that is not read.
        ResourceError: the folder holds something else, or cannot be written.
    """
    start = time.perf_counter()
    if dtype not in _SIZES:
        raise UsageError(f"dtype is {dtype!r}", fix=f"it is one of {', '.join(_SIZES)}")
    file = Gguf(Path(gguf))
    where = str(gguf)
    metadata = file.metadata()
    tensors = {name: (shape, kind) for name, shape, kind in file.tensors()}
    config = _config(metadata, tensors, where) | {"dtype": dtype}
    tokenizer = _tokenizer(metadata, where)
    plan = list(_plan(config, tensors, where))

    target = Path(output_dir)
    _check_target(target)
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _write_weights(staging / "model.safetensors", file, plan, dtype, progress)
        settings: dict[str, Any] = {"config.json": config, "generation_config.json": _generation(config)}
        settings["tokenizer_config.json"] = tokenizer["config"]
        for name, content in settings.items():
            (staging / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (staging / "tokenizer.json").write_text(tokenizer["json"], encoding="utf-8")
        if tokenizer["template"] is not None:
            (staging / "chat_template.jinja").write_text(tokenizer["template"], encoding="utf-8")
        for path in staging.iterdir():
            sync_file(path)
        sync_folder(staging)
        if target.exists():
            shutil.rmtree(target)
        os.replace(staging, target)
        sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)

    types: dict[str, int] = {}
    for _, kind in tensors.values():
        types[kind] = types.get(kind, 0) + 1
    parameters = sum(_count(shape) for _, _, shape, _ in plan)
    return ImportReport(str(target), len(plan), parameters, types, time.perf_counter() - start)


def _check_target(target: Path) -> None:
    known = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    known.add("chat_template.jinja")
    if not target.exists():
        return
    if not target.is_dir():
        raise ResourceError("output_dir is a file", where=str(target), fix="choose another output_dir")
    strangers = sorted(path.name for path in target.iterdir() if path.name not in known)
    if strangers:
        raise ResourceError(
            "output_dir holds other files",
            where=str(target),
            why=", ".join(strangers[:5]),
            fix="choose a new folder; an import replaces its folder whole",
        )


def _config(metadata: dict[str, object], tensors: dict[str, tuple[list[int], str]], where: str) -> dict[str, Any]:
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise GgufError(
            f"the architecture is {architecture!r}",
            where=where,
            why="only llama is read",
            fix=_INSTEAD,
        )
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in tensors:
        raise GgufError(
            "the model scales its rotary positions", where=where, why="scaled positions are not read yet", fix=_INSTEAD
        )

    def number(key: str, default: float | None = None) -> Any:
        value = metadata.get(f"llama.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise GgufError(f"llama.{key} is {value!r}", where=where, why="it must be a number", fix=_INSTEAD)
        return value

    for key in ("attention.head_count", "embedding_length", "block_count", "feed_forward_length", "context_length"):
        if not isinstance(number(key), int):
            raise GgufError(
                f"llama.{key} is {number(key)!r}", where=where, why="it must be a whole number", fix=_INSTEAD
            )
    if not 0 < number("block_count") <= len(tensors):
        raise GgufError(
            f"llama.block_count is {number('block_count')}", where=where, why="the file has fewer tensors", fix=_INSTEAD
        )
    heads = number("attention.head_count")
    width = number("embedding_length")
    if heads < 1 or number("attention.head_count_kv", heads) < 1 or heads % number("attention.head_count_kv", heads):
        raise GgufError("the head counts do not fit together", where=where, fix=_INSTEAD)
    head_dim = number("attention.key_length", width // heads)
    if number("rope.dimension_count", head_dim) != head_dim:
        raise GgufError("only part of each head is rotated", where=where, why="that is not read", fix=_INSTEAD)
    if number("expert_count", 0):
        raise GgufError("the model has experts", where=where, why="mixtures of experts are not read", fix=_INSTEAD)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise GgufError("the file has no tensor 'token_embd.weight'", where=where, fix=_INSTEAD)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": number("feed_forward_length"),
        "max_position_embeddings": number("context_length"),
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": number("block_count"),
        "num_key_value_heads": number("attention.head_count_kv", heads),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": number("rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": embedding[0][0],
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        value = metadata.get(f"tokenizer.ggml.{key}_token_id")
        config[f"{name}_token_id"] = value if isinstance(value, int) and value < embedding[0][0] else None
    return config


def _generation(config: dict[str, Any]) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: config[name] for name in names if config[name] is not None}


def _tokenizer(metadata: dict[str, object], where: str) -> dict[str, Any]:
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise GgufError(
            f"the tokenizer is of kind {kind!r}",
            where=where,
            why="only byte-level BPE (gpt2) is read",
            fix="take tokenizer.json from the original model",
        )
    lists: list[Any] = [metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges")]
    if not all(isinstance(items, list) and items for items in lists):
        raise GgufError(
            "the tokenizer's lists are missing",
            where=where,
            why="tokens, token_type and merges are needed",
            fix=_INSTEAD,
        )
    tokens, types, merges = lists
    if not all(isinstance(token, str) for token in (*tokens, *merges)) or not all(isinstance(n, int) for n in types):
        raise GgufError("the tokenizer's lists hold values of another type", where=where, fix=_INSTEAD)
    pre = metadata.get("tokenizer.ggml.pre", "missing")
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(token, int) and token < len(tokens):
            config[f"{name}_token"] = tokens[token]
    template = metadata.get("tokenizer.chat_template")
    return {
        "json": gguf_tokenizer_json(tokens, types, merges, str(pre)),
        "config": config,
        "template": template if isinstance(template, str) else None,
    }


def _plan(
    config: dict[str, Any], tensors: dict[str, tuple[list[int], str]], where: str
) -> Iterator[tuple[str, str, list[int], int]]:
    """(GGUF name, transformers name, shape, heads whose rows are interleaved), checked against the config."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads, head_dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    shapes = {
        "attn_norm": [width],
        "ffn_norm": [width],
        "attn_q": [heads * head_dim, width],
        "attn_k": [kv_heads * head_dim, width],
        "attn_v": [kv_heads * head_dim, width],
        "attn_output": [width, heads * head_dim],
        "ffn_gate": [inner, width],
        "ffn_up": [inner, width],
        "ffn_down": [width, inner],
        "token_embd": [config["vocab_size"], width],
        "output": [config["vocab_size"], width],
        "output_norm": [width],
    }
    rotary = {"attn_q.weight": heads, "attn_k.weight": kv_heads}
    wanted = {
        f"blk.{n}.{key}": f"model.layers.{n}.{value}"
        for n in range(config["num_hidden_layers"])
        for key, value in _LAYER.items()
    }
    wanted |= {
        key: value for key, value in _OUTER.items() if key != "output.weight" or not config["tie_word_embeddings"]
    }
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        parts = [
            f"{word}: {', '.join(names[:4])}" for word, names in (("missing", missing), ("not known", unknown)) if names
        ]
        raise GgufError(
            "the file's tensors are not those of a llama model", where=where, why="; ".join(parts), fix=_INSTEAD
        )
    for name, theirs in wanted.items():
        short = name.split(".", 2)[-1] if name.startswith("blk.") else name
        shape = tensors[name][0]
        if shape != shapes[short.removesuffix(".weight")]:
            raise GgufError(
                f"the tensor {name!r} is {shape}",
                where=where,
                why=f"the config asks for {shapes[short[:-7]]}",
                fix=_INSTEAD,
            )
        yield name, theirs, shape, rotary.get(short, 0)


def _write_weights(
    path: Path,
    file: Gguf,
    plan: list[tuple[str, str, list[int], int]],
    dtype: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """safetensors, one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for _, name, shape, _ in plan:
        end = offset + _count(shape) * _SIZES[dtype]
        header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for done, (source, _, _, heads) in enumerate(plan, start=1):
            handle.write(file.tensor(source, dtype, heads).data)
            if progress is not None:
                progress(done, len(plan))


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
