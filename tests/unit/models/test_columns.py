"""Columns of a flat batch equal what the model says of each segment alone, whichever way the model is routed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import ROPE
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from alignite.errors import UsageError
from alignite.models.checkpointing import enable_gradient_checkpointing
from alignite.models.columns import compute_columns
from alignite.models.loading import load_model
from alignite.models.routing import route_of
from alignite.types import SftBatch

VOCABULARY = ROPE["vocab_size"]
WANTED = frozenset({"policy.logp", "policy.entropy", "policy.is_top1"})
GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}

# Whether each is routed; None where it depends on the version of transformers (GPT-J is open from 5.24 on).
MODELS: dict[str, tuple[Callable[[], Any], bool | None]] = {
    "llama": (lambda: LlamaForCausalLM(LlamaConfig(**ROPE)), True),
    "llama, tied": (lambda: LlamaForCausalLM(LlamaConfig(**ROPE, tie_word_embeddings=True)), True),
    "qwen2": (lambda: Qwen2ForCausalLM(Qwen2Config(**ROPE)), True),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**ROPE, sliding_window=None)), True),
    "mistral, narrow window": (lambda: MistralForCausalLM(MistralConfig(**ROPE, sliding_window=4)), False),
    "cohere": (lambda: CohereForCausalLM(CohereConfig(**ROPE, logit_scale=0.3)), True),
    "granite": (lambda: GraniteForCausalLM(GraniteConfig(**ROPE, logits_scaling=3.0)), True),
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(**GPT, n_embd=32)), True),
    "gemma2": (lambda: Gemma2ForCausalLM(Gemma2Config(**ROPE, head_dim=8)), False),
    "gptj": (lambda: GPTJForCausalLM(GPTJConfig(**GPT, n_embd=32, rotary_dim=4)), None),
    "bloom": (lambda: BloomForCausalLM(BloomConfig(**GPT, hidden_size=32)), False),
}


def batch(*lengths: int, masked: int = 2, seed: int = 0) -> SftBatch:
    """Random segments whose first ``masked`` tokens are not scored."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (sum(lengths),), generator=generator)
    starts = np.cumsum([0, *lengths[:-1]])
    labels = ids.clone()
    for start in starts.tolist():
        labels[start : start + masked] = -100
    segments = np.stack([starts, lengths, np.full(len(lengths), -1)], axis=1).astype(np.int64)
    return SftBatch(ids, labels, torch.cat([torch.arange(n) for n in lengths]), segments, len(lengths))


def alone(model: Any, packed: SftBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The same columns from full logits of one segment after the other."""
    logp, entropy, top = [], [], []
    for start, length, _ in packed.segments.tolist():
        labels = packed.labels[start : start + length]
        logits = model(input_ids=packed.input_ids[None, start : start + length], use_cache=False).logits[0]
        log_probs = logits.float().log_softmax(-1)[:-1][labels[1:] != -100]
        targets = labels[1:][labels[1:] != -100]
        logp.append(log_probs.gather(1, targets[:, None])[:, 0])
        entropy.append(-(log_probs.exp() * log_probs).sum(-1))
        top.append((log_probs.argmax(-1) == targets).float())
    return torch.cat(logp), torch.cat(entropy), torch.cat(top)


@pytest.fixture(params=MODELS, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bool | None]:
    make, routed = MODELS[request.param]
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    make().save_pretrained(folder)
    return load_model(folder), routed


def test_columns_and_gradients_equal_those_of_segments_alone(loaded: tuple[Any, bool | None]) -> None:
    model, routed = loaded
    model.requires_grad_(True)
    packed = batch(6, 9, 3)
    found = compute_columns({"policy": model}, packed, WANTED, chunk_size=4)
    assert routed in (None, route_of(model).routed), route_of(model).reason
    expected = alone(model, packed)
    for name, values in zip(("logp", "entropy", "is_top1"), expected, strict=True):
        column = found[f"policy.{name}"]
        assert column.dtype == torch.float32
        assert column.requires_grad == (name == "logp")
        torch.testing.assert_close(column.detach(), values.detach(), rtol=1e-4, atol=2e-5)
    weights = torch.linspace(0.1, 1.0, len(expected[0]))
    gradients = []
    for logp in (found["policy.logp"], expected[0]):
        model.zero_grad()
        (logp * weights).sum().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def family(parents: list[int], lengths: list[int], seed: int = 0) -> tuple[SftBatch, SftBatch]:
    """Segments that continue others, all of whose tokens are scored but the roots', and each behind its own copy."""
    ids = batch(*lengths, seed=seed).input_ids
    starts = np.cumsum([0, *lengths[:-1]])
    spans, offsets = [], []
    for index, parent in enumerate(parents):
        span = torch.arange(starts[index], starts[index] + lengths[index])
        offsets.append(len(spans[parent]) if parent >= 0 else 0)
        spans.append(torch.cat([spans[parent], span]) if parent >= 0 else span)
    labels = ids.clone()
    for index, parent in enumerate(parents):
        if parent < 0:
            labels[starts[index] : starts[index] + lengths[index]] = -100
    segments = np.stack([starts, lengths, parents], axis=1).astype(np.int64)
    positions = torch.cat([torch.arange(o, o + n) for o, n in zip(offsets, lengths, strict=True)])
    shared = SftBatch(ids, labels, positions, segments, len(lengths))
    whole = [len(span) for span in spans]
    own = torch.cat(
        [torch.where(torch.arange(len(s)) < o, -100, labels[s]) for s, o in zip(spans, offsets, strict=True)]
    )
    begins = np.stack([np.cumsum([0, *whole[:-1]]), whole, np.full(len(whole), -1)], axis=1).astype(np.int64)
    return shared, SftBatch(ids[torch.cat(spans)], own, torch.cat([torch.arange(n) for n in whole]), begins, len(whole))


FAMILIES = {
    "a pair": ([-1, 0, 0], [6, 3, 4]),
    "two prompts, five replies": ([-1, 0, 0, -1, 3, 3, 3], [5, 2, 1, 3, 4, 2, 6]),
    "steps that continue each other": ([-1, 0, 0, 2, 2, 4], [4, 2, 3, 1, 2, 3]),
    "a lone text beside a pair": ([-1, -1, 1, 1], [5, 6, 3, 2]),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_replies_that_share_a_prompt_equal_replies_with_their_own(name: str, loaded: tuple[Any, bool | None]) -> None:
    model, _ = loaded
    model.requires_grad_(True)
    gradients, found = [], []
    for packed in family(*FAMILIES[name]):
        model.zero_grad()
        logp = compute_columns({"policy": model}, packed, frozenset({"policy.logp"}))["policy.logp"]
        (logp * torch.linspace(0.1, 1.0, len(logp))).sum().backward()
        found.append(logp.detach())
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=2e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for parameter, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[0][parameter], gradient, rtol=1e-3, atol=1e-5, msg=parameter)


def test_a_reply_cannot_see_its_sibling(loaded: tuple[Any, bool | None]) -> None:
    model, _ = loaded
    logp = []
    for change in (0, 5):
        packed, _ = family([-1, 0, 0], [6, 3, 4])
        packed.input_ids[6:9] = (packed.input_ids[6:9] + change) % VOCABULARY
        with torch.no_grad():
            logp.append(compute_columns({"policy": model}, packed, frozenset({"policy.logp"}))["policy.logp"])
    assert torch.equal(logp[0][3:], logp[1][3:])
    assert not torch.equal(logp[0][1:3], logp[1][1:3])


def test_a_frozen_head_gives_the_same_gradient_below_it(loaded: tuple[Any, bool | None]) -> None:
    model, _ = loaded
    packed = batch(6, 9, 3)
    model.requires_grad_(False)
    inner = [p for n, p in model.named_parameters() if ".1." in n or ".0." in n]
    for parameter in inner:
        parameter.requires_grad_(True)
    gradients = []
    for logp in (compute_columns({"policy": model}, packed, WANTED)["policy.logp"], alone(model, packed)[0]):
        model.zero_grad()
        logp.mul(torch.linspace(0.1, 1.0, len(logp))).sum().backward()
        gradients.append([p.grad.clone() for p in inner if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 5
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_segment_cannot_see_another(loaded: tuple[Any, bool | None]) -> None:
    model, _ = loaded
    first, second = batch(6, 9, 3), batch(6, 9, 3)
    second.input_ids[6:15] = (second.input_ids[6:15] + 5) % VOCABULARY
    with torch.no_grad():
        one, two = (compute_columns({"policy": model}, part, WANTED)["policy.logp"] for part in (first, second))
    assert torch.equal(one[:4], two[:4])
    assert torch.equal(one[-1:], two[-1:])
    assert not torch.equal(one[4:-1], two[4:-1])


def test_checkpointing_gives_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**ROPE)).save_pretrained(tmp_path)
    gradients = []
    for checkpointing in (False, True):
        model: Any = load_model(tmp_path).train()
        if checkpointing:
            enable_gradient_checkpointing(model)
        compute_columns({"policy": model}, batch(6, 9), WANTED)["policy.logp"].sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_nothing_scored_gives_empty_columns_with_a_graph(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**ROPE)).save_pretrained(tmp_path)
    model: Any = load_model(tmp_path)
    found = compute_columns({"policy": model}, batch(4, 5, masked=9), WANTED)
    assert all(column.shape == (0,) for column in found.values())
    found["policy.logp"].sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_sums_of_squared_probabilities_are_a_column_without_a_graph(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**ROPE)).save_pretrained(tmp_path)
    model: Any = load_model(tmp_path)
    packed = batch(7)
    (found,) = compute_columns({"policy": model}, packed, frozenset({"policy.log_sum_sq_probs"})).values()
    logits = model(input_ids=packed.input_ids[None], use_cache=False).logits[0, 1:-1]
    assert not found.requires_grad
    torch.testing.assert_close(found, logits.softmax(-1).square().sum(-1).log().detach(), rtol=1e-4, atol=1e-5)


def test_columns_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**ROPE)).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    for name in ("policy.value", "reference.logp", "logp"):
        with pytest.raises(UsageError, match=name):
            compute_columns({"policy": model}, batch(4), frozenset({name}))


def test_bfloat16_logits_are_summed_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**ROPE)).save_pretrained(tmp_path)
    packed = batch(6, 9, 3)
    with torch.no_grad():
        exact = compute_columns({"policy": load_model(tmp_path)}, packed, WANTED)["policy.logp"]
        rounded = compute_columns({"policy": load_model(tmp_path, "bfloat16")}, packed, WANTED)["policy.logp"]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)
