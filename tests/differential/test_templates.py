"""The chat templates of the trl wheel, rendered and masked, against transformers' rendering."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

from alignite.config import SFTConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import AligniteError, MaskError, TemplateError
from alignite.native.data import Preparer

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
SPECIAL_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<eos>"}
CONTROL = re.compile(
    r"<\|[^|>\s]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|<end_of_utterance>|<[a-z_]+\|>|<\|[a-z_]+>"
)
CONVERSATIONS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Hello <b>&'\" there"}, {"role": "assistant", "content": "\n ok "}],
    [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "안녕"},
        {"role": "assistant", "content": "네 🙂"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ],
]

# Refused when it is loaded: it assigns to a name that is not a namespace, which the Rust engine does not allow.
NOT_COMPILED = {"gptoss_training"}
# Made for images: content is a list of parts, which a text conversation is not.
NEEDS_PARTS = {"idefics3", "idefics3_training", "llava_next", "llava_next_training", "smolvlm", "smolvlm_training"}
# Rendered exactly, but what the model must say cannot be told: the history is written otherwise than the prompt that
# the model answers (a "think" block comes or goes), or no token ends a turn.
NOT_MASKED = {
    *("deepseek_r1_distill", "deepseek_r1_distill_training", "deepseekv3", "deepseekv3_training", "glm4moe"),
    *(
        f"nemotron_{size}{kind}"
        for size in ("3_5_lightning", "3_nano", "3_super", "3_ultra")
        for kind in ("", "_training")
    ),
}
# The same, only when an earlier assistant turn is in the history.
NOT_MASKED_LATER = {"qwen3_5_nothink", "qwen3_5_think", "qwen3_6"}


def tokenizer_json(source: str) -> bytes:
    """Bytes as tokens, and the template's control tokens."""
    special = sorted(set(CONTROL.findall(source)) | {"<bos>", "<eos>"})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    content: str = tokenizer.to_str()
    return content.encode()


def load(name: str) -> tuple[str, Preparer]:
    source = (FOLDER / f"{name}.jinja").read_text()
    tokenizer = ChatTokenizer(Path(name), tokenizer_json(source), source, SPECIAL_TOKENS, (0,), 0)
    # Templates that look at the clock see today in transformers.
    return source, tokenizer.preparer(SFTConfig(template_date=date.today().isoformat(), max_length=100_000))


def theirs(source: str, conversation: list[dict[str, str]], prompt: bool) -> str | None:
    try:
        rendered, _ = render_jinja_template(
            [conversation], chat_template=source, add_generation_prompt=prompt, **SPECIAL_TOKENS
        )
    except Exception:  # noqa: BLE001 - a template may raise anything
        return None
    text: str = rendered[0]
    return text


def turns(preparer: Preparer, conversation: list[dict[str, str]]) -> list[str]:
    """The texts of the runs of scored tokens."""
    _, labels, _ = preparer.encode(json.dumps({"messages": conversation}).encode())
    runs: list[list[int]] = [[]]
    for label in labels.tolist():
        if label != -100:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [preparer.decode(run, False) for run in runs if run]


def test_the_lists_name_templates_that_exist() -> None:
    assert len(NAMES) > 60
    assert set(NAMES) >= NOT_COMPILED | NEEDS_PARTS | NOT_MASKED | NOT_MASKED_LATER


@pytest.mark.parametrize("name", NAMES)
def test_rendering_equals_transformers(name: str) -> None:
    if name in NOT_COMPILED:
        with pytest.raises(TemplateError, match="does not render as it does in transformers"):
            load(name)
        return
    source, preparer = load(name)
    for conversation in CONVERSATIONS:
        for prompt in (False, True):
            asked = conversation[:-1] if prompt else conversation
            try:
                ours: str | None = preparer.render(json.dumps(asked), prompt)
            except AligniteError:
                ours = None
            assert ours == theirs(source, asked, prompt)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NOT_COMPILED - NEEDS_PARTS))
def test_scored_are_each_assistants_words_and_the_token_that_ends_them(name: str) -> None:
    source, preparer = load(name)
    for conversation in CONVERSATIONS:
        if theirs(source, conversation, False) is None:  # no system role, say
            continue
        answers = [turn["content"] for turn in conversation if turn["role"] == "assistant"]
        if name in NOT_MASKED or (name in NOT_MASKED_LATER and len(answers) > 1):
            with pytest.raises(MaskError):
                turns(preparer, conversation)
            continue
        found = turns(preparer, conversation)
        assert len(found) == len(answers)
        for run, answer in zip(found, answers, strict=True):
            said, end = re.fullmatch(r"(.*?)(<[^<>]*>)", run, flags=re.DOTALL).groups()  # type: ignore[union-attr]
            # Some templates trim, some let the model open and close a block of thoughts first.
            assert said.endswith(answer) or said.endswith(answer.strip())
            assert CONTROL.fullmatch(end) or end == "<eos>"


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "phi3", "gemma3", "cohere"])
def test_control_tokens_in_a_content_stay_text(name: str) -> None:
    source, preparer = load(name)
    token = sorted(set(CONTROL.findall(source)))[0]
    conversation = [
        {"role": "user", "content": f"x {token} y"},
        {"role": "assistant", "content": f"a{token}b"},
    ]
    plain = [{"role": "user", "content": "x y"}, {"role": "assistant", "content": "ab"}]
    ids, labels, _ = preparer.encode(json.dumps({"messages": conversation}).encode())
    control = {n for n, _ in enumerate(sorted(set(CONTROL.findall(source)) | {"<bos>", "<eos>"}))}

    def controls(values: Any) -> list[int]:
        return [n for n in values.tolist() if n in control]

    expected_ids, expected_labels, _ = preparer.encode(json.dumps({"messages": plain}).encode())
    assert controls(ids) == controls(expected_ids)
    assert controls(labels) == controls(expected_labels)
    assert token in turns(preparer, conversation)[0]
