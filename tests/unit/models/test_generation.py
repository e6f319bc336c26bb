from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import UsageError
from alignite.models.generation import generate_text
from alignite.models.loading import load_model

PROMPTS = ["Who are you?", "1 + 1", "안녕하세요, 오늘은 어때요?", "x"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    return load_model(tiny_model_folder)


def conversations() -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


def test_greedy_answers_are_transformers_whatever_the_batch(
    tiny_model_folder: Path, model: Any, tokenizer: ChatTokenizer
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs: Any = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    their_tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model_folder)
    expected = []
    for conversation in conversations():
        text = their_tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([their_tokenizer.encode(text, add_special_tokens=False)])
        output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=15, do_sample=False)
        expected.append(their_tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    for size in (1, 3, 8):
        assert generate_text(model, tokenizer, conversations(), max_new_tokens=15, batch_size=size) == expected


def test_a_seed_decides_and_leaves_the_callers_random_state(model: Any, tokenizer: ChatTokenizer) -> None:
    options: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.5}
    torch.manual_seed(123)
    state = torch.get_rng_state()
    first = generate_text(model, tokenizer, conversations(), seed=1, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate_text(model, tokenizer, conversations(), seed=1, **options) == first
    assert generate_text(model, tokenizer, conversations(), seed=2, **options) != first
    assert generate_text(model, tokenizer, conversations(), **options) != first
    assert not torch.equal(torch.get_rng_state(), state)


def test_defaults_of_the_folder_do_not_act(model: Any, tokenizer: ChatTokenizer) -> None:
    expected = generate_text(model, tokenizer, conversations(), max_new_tokens=12)
    sampled = generate_text(model, tokenizer, conversations(), max_new_tokens=12, temperature=0.9, seed=4)
    before = model.generation_config
    model.generation_config = type(before)(
        do_sample=True,
        min_p=0.9,
        top_k=1,
        typical_p=0.2,
        no_repeat_ngram_size=1,
        suppress_tokens=[40, 41],
        max_length=3,
    )
    try:
        assert generate_text(model, tokenizer, conversations(), max_new_tokens=12) == expected
        assert generate_text(model, tokenizer, conversations(), max_new_tokens=12, temperature=0.9, seed=4) == sampled
        assert model.generation_config.min_p == 0.9
    finally:
        model.generation_config = before


def test_the_models_mode_comes_back(model: Any, tokenizer: ChatTokenizer) -> None:
    model.train()
    generate_text(model, tokenizer, ["raw text"], max_new_tokens=2)
    assert model.training
    model.eval()


def test_what_cannot_be_generated_is_said(model: Any, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    for options in ({"max_new_tokens": 0}, {"top_p": 0.0}, {"temperature": float("nan")}, {"batch_size": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            generate_text(model, tokenizer, ["x"], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty"):
        generate_text(model, tokenizer, [""])
    folder = shutil.copytree(tokenizer.folder, tmp_path / "plain")
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(Exception, match="no chat template"):
        generate_text(model, ChatTokenizer.from_folder(folder), conversations())
