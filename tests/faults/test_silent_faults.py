"""Faults that were silent, destroyed something, or ended in a traceback, until a reviewer found them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM

from alignite.config import SFTConfig
from alignite.data import ChatTokenizer, prepare_sft
from alignite.errors import AdapterError, DataError, ModelError, ResourceError, TemplateError
from alignite.models import attention
from alignite.models.head import Head
from alignite.models.loading import load_model
from alignite.models.routing import _window, check_length
from alignite.peft import LoraConfig, apply_adapter

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_preparing_replaces_nothing_else(tiny_model_folder: Path, tmp_path: Path, what: str) -> None:
    target, kept = tmp_path / "precious", tmp_path / "elsewhere"
    if what == "file":
        target.write_text("keep me")
    else:
        folder = target if what == "folder" else kept
        folder.mkdir()
        (folder / "thesis.txt").write_text("keep me")
        if what == "link":
            target.symlink_to(kept)
    with pytest.raises(ResourceError, match="would replace something else"):
        prepare_sft([ROW], ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), target)
    found = target if what == "file" else (target / "thesis.txt")
    assert found.read_text() == "keep me"


def test_a_line_that_is_too_long_does_not_hide_the_rows_after_it(tiny_model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    row = json.dumps(ROW).encode() + b"\n"
    file.write_bytes(row + b'{"x": "' + b"y" * (65 << 20) + b'"}\n' + row * 5)
    prepared = prepare_sft(
        file, ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(on_bad_row="skip"), tmp_path / "p"
    )
    assert (prepared.report["rows"], prepared.report["used"]) == (7, 6)


def test_a_file_that_breaks_off_is_an_error_also_when_bad_rows_are_skipped(
    tiny_model_folder: Path, tmp_path: Path
) -> None:
    import gzip

    whole = gzip.compress((json.dumps(ROW) + "\n").encode() * 1000)
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) - 12])
    with pytest.raises(DataError, match="damaged"):
        prepare_sft(
            tmp_path / "cut.gz",
            ChatTokenizer.from_folder(tiny_model_folder),
            SFTConfig(on_bad_row="skip"),
            tmp_path / "p",
        )


@pytest.mark.parametrize(
    "block", ["{{ '}}' ~ " + "-" * 60_000 + "1 }}", "{% if false %}{{ 7**(10**8) }}{% endif %}", "{{ 'a'*1500000000 }}"]
)
def test_a_template_made_to_hang_or_crash_is_refused(block: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    template = folder / "chat_template.jinja"
    template.write_text(block + (template.read_text() if template.is_file() else ""))
    with pytest.raises(TemplateError, match="refused"):
        ChatTokenizer.from_folder(folder).render(ROW["messages"])


@pytest.mark.parametrize("name", ["../outside.safetensors", "/tmp/outside.safetensors"])
def test_a_weight_index_stays_in_its_folder_however_it_is_written(tmp_path: Path, name: str) -> None:
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path)
    escaped = json.dumps({"weight_map": {"a": name}}).replace(".", "\\u002e").replace("/", "\\/")
    (tmp_path / "model.safetensors.index.json").write_text(escaped)
    with pytest.raises(ModelError, match="outside its folder"):
        load_model(tmp_path)


def test_a_model_with_attention_sinks_is_not_routed() -> None:
    model = GptOssForCausalLM(GptOssConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1, head_dim=8))
    assert "sinks" in (attention.refusal(model) or "")
    query = torch.randn(1, 2, 3, 8)
    with pytest.raises(ValueError, match="s_aux"):
        attention.segment_attention(model, query, query, query, None, s_aux=torch.zeros(2))


def test_a_window_is_seen_wherever_the_config_keeps_it() -> None:
    assert _window(Gemma3TextConfig(sliding_window=12)) == 12
    config = LlamaConfig(**SMALL)
    config.attention_chunk_size, config.index_topk = 9, 8
    assert _window(config) == 8


def test_rows_longer_than_the_models_positions_are_refused() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=16))
    check_length(model, 16)
    with pytest.raises(ModelError, match="17 tokens and the model has 16"):
        check_length(model, 17)


def test_an_adapter_on_the_head_is_refused_before_training() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False))
    apply_adapter(model, LoraConfig(target_modules=["lm_head"]))
    with pytest.raises(AdapterError, match="vocabulary head"):
        Head.of(model)


def test_a_refused_adapter_leaves_the_model_as_it_was() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    apply_adapter(model, LoraConfig(target_modules=["v_proj"]))
    before = [(name, p.requires_grad) for name, p in model.named_parameters()]
    with pytest.raises(AdapterError, match="already"):
        apply_adapter(model, LoraConfig())
    assert [(name, p.requires_grad) for name, p in model.named_parameters()] == before


class Doubled(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_a_linear_with_a_forward_of_its_own_keeps_it() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), Doubled(4, 4))
    x = torch.randn(3, 4)
    before = model(x)
    assert not any(".1." in f".{name}" for name in apply_adapter(model, LoraConfig(), name="all"))
    apply_adapter(model, LoraConfig(target_modules=["1"]), name="one")
    torch.testing.assert_close(model(x), before)
