"""Answers of a model, batched, with the chat template of its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from alignite.config import GenerateConfig
from alignite.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from alignite.data.tokenizer import ChatTokenizer

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[int]


def generate_text(
    model: nn.Module,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    batch_size: int = 8,
) -> list[str]:
    """One answer a prompt, in the prompts' order.

    Only these options act: defaults for sampling in the model's generation_config.json do not.

    Args:
        model: a transformers causal LM; active adapters act.
        prompts: conversations (lists of messages), which the chat template turns into text, raw texts, or ids.
        max_new_tokens: longest answer. ``temperature``: 0 takes the likeliest token; ``top_p``, ``top_k`` (0 means
            all) and ``repetition_penalty`` (1 means none) are transformers'.
        seed: of the sampling, which then leaves torch's random state as it was; None draws from that state.
        batch_size: prompts generated together, padded on the left.

    Raises:
        ConfigError: an option is out of range. UsageError: a prompt is empty.
    """
    GenerateConfig(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        batch_size=batch_size,
    ).validate()
    encoded = [_ids(prompt, tokenizer) for prompt in prompts]
    if not all(encoded):
        raise UsageError("a prompt is empty", fix="give a prompt with text")
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "repetition_penalty": repetition_penalty}
    options |= {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": list(tokenizer.eos_token_ids) or None}
    if temperature > 0:
        options |= {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    else:
        options |= {"do_sample": False}
    answers: list[str] = []
    with _ready(model, seed):
        for start in range(0, len(encoded), batch_size):
            answers += _batch(model, tokenizer, encoded[start : start + batch_size], options)
    return answers


def _ids(prompt: Prompt, tokenizer: ChatTokenizer) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    items: list[Any] = list(prompt)
    if all(isinstance(item, int) for item in items):
        return items
    return tokenizer.encode(tokenizer.render(items, add_generation_prompt=True))


@contextmanager
def _ready(model: nn.Module, seed: int | None) -> Iterator[None]:
    """Evaluation mode, no defaults but transformers' own, a seeded random state; all as before afterwards."""
    from transformers import GenerationConfig

    holder = cast("Any", model)
    was_training, defaults = model.training, holder.generation_config
    cuda = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    model.eval()
    holder.generation_config = GenerationConfig()
    try:
        with torch.random.fork_rng(cuda, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        holder.generation_config = defaults
        model.train(was_training)


def _batch(model: nn.Module, tokenizer: ChatTokenizer, prompts: list[list[int]], options: dict[str, Any]) -> list[str]:
    device = next(model.parameters()).device
    width = max(len(ids) for ids in prompts)
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.no_grad():
        output = cast("Any", model).generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=True, **options
        )
    ends = set(tokenizer.eos_token_ids)
    answers = []
    for row in output[:, width:].tolist():
        stop = next((index for index, token in enumerate(row) if token in ends), len(row))
        answers.append(tokenizer.decode(row[:stop], skip_special_tokens=True))
    return answers
