"""The chat templates of the trl wheel, and SmolLM2's: rendered and masked, against transformers."""

from __future__ import annotations

import json
import re
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import trl
from conversations import ASK, CASES, TOOLS, bot, call, result, user
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignite.config import SFTConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, MaskError, TemplateError
from alignite.native.data import Preparer

FOLDER = Path(trl.__file__).parent / "chat_templates"
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SOURCES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))} | {"smollm2": SMOLLM2}
NAMES = sorted(SOURCES)
SPECIAL_TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<eos>"}
CONTROL = re.compile(
    r"<\|[^|>\s]+\|>|<｜[^｜]+｜>|<(?:start|end)_of_turn>|<turn\|>|<\|turn>|<end_of_utterance>|<[a-z_]+\|>|<\|[a-z_]+>"
)
# They write contents that are lists of parts and drop those that are strings, which every row here has.
SWALLOW = {"idefics3", "idefics3_training", "smolvlm", "smolvlm_training"}
# They fail on contents that are strings, in transformers too.
NEED_PARTS = {"llava_next", "llava_next_training"}
# They do not write an assistant's tool calls.
NO_CALLS = {
    *("cohere", "cohere2", "deepseek_r1_distill", "gemma", "gemma3", "lfm2", "llama3", "phi3", "phi3_5", "qwen2_5_vl"),
    *("cohere_training", "cohere2_training", "deepseek_r1_distill_training", "gemma_training", "gemma3_training"),
    *("lfm2_training", "llama3_training", "phi3_training", "phi3_5_training", "qwen2_5_vl_training", "smollm2"),
}


def control_tokens(source: str) -> list[str]:
    return sorted(set(CONTROL.findall(source)) | {"<bos>", "<eos>"})


def make_tokenizer(source: str) -> Tokenizer:
    """Bytes as tokens, and the template's control tokens."""
    special = control_tokens(source)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


@cache
def load(name: str, **options: Any) -> Preparer:
    content: str = make_tokenizer(SOURCES[name]).to_str()
    tokenizer = ChatTokenizer(Path(name), content.encode(), SOURCES[name], SPECIAL_TOKENS, (0,), 0)
    # Templates that look at the clock see today in transformers.
    return tokenizer.preparer(SFTConfig(template_date=date.today().isoformat(), max_length=100_000, **options))


@lru_cache(maxsize=1)
def peer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(""), **SPECIAL_TOKENS)


def theirs(source: str, conversation: list[dict[str, Any]], how: dict[str, Any]) -> str | None:
    try:
        text: str = peer().apply_chat_template(conversation, chat_template=source, tokenize=False, **how)
    except Exception:  # noqa: BLE001 - a template may raise anything
        return None
    return text


def options(how: dict[str, Any]) -> tuple[bool, str]:
    """transformers' arguments as the renderer takes them."""
    rest = dict(how)
    prompt: bool = rest.pop("add_generation_prompt", False)
    given: dict[str, Any] = {name: rest.pop(name) for name in ("tools", "documents") if name in rest}
    field = rest.pop("continue_final_message", None)
    if field:
        given["continue_final_message"] = "content" if field is True else field
    return prompt, json.dumps({**given, "variables": rest})


def ours(preparer: Preparer, conversation: list[dict[str, Any]], how: dict[str, Any]) -> str | None:
    try:
        return preparer.render(json.dumps(conversation), *options(how))
    except (DataError, MaskError):
        return None


def scored(preparer: Preparer, conversation: list[dict[str, Any]], **how: Any) -> list[str]:
    """The texts that are scored, one for each turn."""
    text, spans = preparer.scored(json.dumps(conversation), options(how)[1])
    return [text[start:end] for start, end, _ in spans]


def test_the_lists_name_templates_that_exist() -> None:
    assert len(NAMES) == 73
    assert set(NAMES) >= SWALLOW | NEED_PARTS | NO_CALLS


@pytest.mark.parametrize("name", NAMES)
def test_rendering_equals_transformers(name: str) -> None:
    preparer = load(name)
    assert preparer.renders()[0], "every one of these templates is rendered by the Rust engine"
    rendered = 0
    for case, conversation, how in CASES:
        expected = theirs(SOURCES[name], conversation, how)
        assert ours(preparer, conversation, how) == expected, case
        rendered += expected is not None
    assert rendered >= (3 if name in NEED_PARTS else 20)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SWALLOW - NEED_PARTS))
def test_scored_are_each_assistants_words_and_the_token_that_ends_them(name: str) -> None:
    """S4: what the labels decode to is what the assistants say and the tokens that end it."""
    preparer = load(name)
    control = "|".join(re.escape(token) for token in control_tokens(SOURCES[name]))
    masked = 0
    for case, conversation, how in CASES:
        plain = all(isinstance(turn.get("content"), str) and "tool_calls" not in turn for turn in conversation)
        if not plain or how or theirs(SOURCES[name], conversation, how) is None or "bot first" in case:
            continue
        answers = [turn for turn in conversation if turn["role"] == "assistant" and turn.get("train", True)]
        if not answers or any(turn["role"] in ("developer", "critic") for turn in conversation):
            continue
        if not any(turn["content"].strip() for turn in answers):
            continue  # Nothing is learned from it but an end: left out.
        _, labels, _ = preparer.encode(json.dumps({"messages": conversation}).encode())
        spans = scored(preparer, conversation)
        decoded = preparer.decode([label for label in labels.tolist() if label != -100], False)
        assert decoded == "".join(spans), case
        assert len(spans) == len(answers), case
        for span, answer in zip(spans, answers, strict=True):
            body, end = re.fullmatch(rf"(.*?)\s*({control})", span, flags=re.DOTALL).groups()  # type: ignore[union-attr]
            # Some templates trim, some drop old thoughts; some let the model open a channel or thoughts first.
            words = re.sub(r"<think>.*</think>", "", answer["content"], flags=re.DOTALL).strip()
            assert re.sub(rf"(?:{control})$", "", body).rstrip().endswith(words), (case, span)
            assert end
        masked += 1
    assert masked >= 7


@pytest.mark.parametrize("name", sorted(SWALLOW))
def test_a_template_that_drops_what_the_assistant_says_is_refused(name: str) -> None:
    with pytest.raises(TemplateError, match="leaves out what an assistant says"):
        load(name).encode(json.dumps({"messages": [user("q"), bot("a")]}).encode())


@pytest.mark.parametrize("name", sorted(set(NAMES) - SWALLOW - NEED_PARTS))
def test_tool_calls_and_reasoning_are_scored_or_refused(name: str) -> None:
    preparer = load(name)
    masked = 0
    for arguments in ({"city": "Paris", "days": 3}, {}, {"days": 3}, json.dumps({"city": "Paris"})):
        conversation = [ASK, bot("", tool_calls=[call(arguments)]), result(), bot("Sunny.", reasoning_content="sun")]
        for messages in (conversation, conversation[:2]):
            if theirs(SOURCES[name], messages, {"tools": TOOLS}) is None:
                continue
            if name in NO_CALLS:
                with pytest.raises(MaskError, match="does not write the call"):
                    scored(preparer, messages, tools=TOOLS)
                continue
            spans = scored(preparer, messages, tools=TOOLS)
            assert len(spans) == len(messages) // 2
            assert "get_weather" in spans[0]
            assert "Weather?" not in "".join(spans)
            assert "sunny" not in "".join(spans)
            masked += 1
            if len(spans) > 1:
                text = preparer.scored(json.dumps(messages), options({"tools": TOOLS})[1])[0]
                assert "Sunny." in spans[1]
                # Where the template writes the last turn's thoughts, the model must.
                written = text.replace("sunny", "").split("Weather?")[-1]
                assert ("sun" in spans[1].replace("Sunny", "")) == ("sun" in written)
    assert masked or name in NO_CALLS


@pytest.mark.parametrize("name", NAMES)
def test_a_reply_is_what_follows_the_generation_prompt(name: str) -> None:
    preparer = load(name)
    prompt, reply = [user("q")], [bot("The answer <b>")]
    try:
        prompt_text, reply_text = preparer.render_reply(json.dumps(prompt), json.dumps(reply))
    except (MaskError, TemplateError):
        # Swallowed; or the prompt opens thoughts that the history does not have.
        assert name in SWALLOW | NEED_PARTS or name.startswith(("deepseek", "nemotron"))
        return
    assert prompt_text == theirs(SOURCES[name], prompt, {"add_generation_prompt": True})
    full = theirs(SOURCES[name], prompt + reply, {})
    assert full is not None
    assert (prompt_text + reply_text).startswith(full) or full.startswith(prompt_text + reply_text)
    assert "The answer <b>" in reply_text


def test_options_widen_and_narrow_the_mask() -> None:
    conversation = [user("q"), bot("a"), user("r"), bot("b")]
    assert scored(load("qwen2_5"), conversation) == ["a<|im_end|>", "b<|im_end|>"]
    assert scored(load("qwen2_5", train_on_header=True), conversation)[0] == "<|im_start|>assistant\na<|im_end|>"
    assert scored(load("qwen2_5", train_on_end_token=False), conversation) == ["a", "b"]
    assert scored(load("qwen2_5", train_on_last_turn_only=True), conversation) == ["b<|im_end|>"]
    thinking = [user("q"), bot("a", reasoning_content="so")]
    assert scored(load("qwen3_5_think"), thinking) == ["so\n</think>\n\na<|im_end|>"]
    assert scored(load("qwen3_5_think", train_on_think_prefill=True), thinking) == [
        "<think>\nso\n</think>\n\na<|im_end|>"
    ]


def test_messages_say_whether_and_how_much_they_are_trained_on() -> None:
    preparer = load("qwen2_5")
    conversation = [user("q"), bot("a", train=False), user("r"), bot("b", weight=0.5), user("s"), bot("c", weight=0)]
    text, spans = preparer.scored(json.dumps(conversation))
    assert [(text[start:end], weight) for start, end, weight in spans] == [("b<|im_end|>", 0.5)]
    for wrong in ({"train": "no"}, {"weight": -1}, {"weight": "1"}):
        with pytest.raises(DataError):
            preparer.scored(json.dumps([user("q"), bot("a", **wrong)]))


def test_a_turn_that_only_the_next_message_ends_gets_its_token() -> None:
    assert scored(load("glm4moe"), [user("q"), bot("a")]) == ["\n<think></think>\na<|user|>"]
    called = [ASK, bot("", tool_calls=[call({"city": "P"})])]
    assert scored(load("glm4moe"), called, tools=TOOLS)[0].endswith("</tool_call><|observation|>")


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "phi3", "gemma3", "cohere"])
def test_control_tokens_in_a_content_stay_text(name: str) -> None:
    preparer = load(name)
    token = sorted(set(CONTROL.findall(SOURCES[name])))[0]
    conversation = [user(f"x {token} y"), bot(f"a{token}b")]
    ids, labels, _ = preparer.encode(json.dumps({"messages": conversation}).encode())
    plain_ids, plain_labels, _ = preparer.encode(json.dumps({"messages": [user("x y"), bot("ab")]}).encode())

    def controls(values: Any) -> list[int]:
        return [n for n in values.tolist() if 0 <= n < len(control_tokens(SOURCES[name]))]

    assert controls(ids) == controls(plain_ids)
    assert controls(labels) == controls(plain_labels)
    assert token in scored(preparer, conversation)[0]


TAGGED = [name for name in NAMES if "{% generation %}" in SOURCES[name] or "{%- generation" in SOURCES[name]]


@pytest.mark.parametrize("name", sorted(set(TAGGED) - SWALLOW - NEED_PARTS))
def test_the_mask_is_transformers_mask_less_its_known_errors(name: str) -> None:
    """TRL's tags hold the newline after the end token, which nobody must emit, and here and there a header."""
    source = SOURCES[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(source), **SPECIAL_TOKENS)
    preparer = load(name)
    compared = 0
    for conversation in ([user("q"), bot("one")], [user("q"), bot("one"), user("r"), bot("둘")]):
        made = tokenizer.apply_chat_template(
            conversation, chat_template=source, return_assistant_tokens_mask=True, return_dict=True
        )
        ids, labels, _ = preparer.encode(json.dumps({"messages": conversation}).encode())
        their_ids = made["input_ids"]
        assert ids.tolist()[: len(their_ids)] == their_ids
        mine = [label != -100 for label in labels.tolist()][: len(their_ids)]
        mask = [bool(flag) for flag in made["assistant_masks"]]
        extra = [n for n, (a, b) in enumerate(zip(mask, mine, strict=True)) if a and not b]
        missing = [n for n, (a, b) in enumerate(zip(mask, mine, strict=True)) if b and not a]
        # We score nothing that the tags leave out.
        assert not missing
        # What is scored beyond ours is white space behind an end token, or a header in TRL's tags.
        text = tokenizer.decode([their_ids[n] for n in extra])
        assert re.fullmatch(r"\s*|.*(?:[aA]ssistant|to=|<think>|<\|end\|>|<eos>).*", text, flags=re.DOTALL), text
        compared += sum(mine)
    assert compared > 0


def test_a_token_across_a_border_is_not_scored_as_it_is_in_transformers() -> None:
    """A known error of transformers: a token that is half header and half answer counts as the assistant's."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% generation %}{{ m.content + '<|im_end|>' }}"
        "{% endgeneration %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    special = control_tokens(source)
    vocabulary = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĊĊ"]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(vocabulary)}, merges=[("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    content: str = tokenizer.to_str()
    mine = ChatTokenizer(Path("borders"), content.encode(), source, SPECIAL_TOKENS, (0,), 0).preparer(SFTConfig())
    conversation = [bot("\n\na")]
    ids, labels, _ = mine.encode(json.dumps({"messages": conversation}).encode())
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)
    made = fast.apply_chat_template(
        conversation, chat_template=source, return_assistant_tokens_mask=True, return_dict=True
    )
    assert made["input_ids"] == ids.tolist()
    assert mine.decode([label for label in labels.tolist() if label != -100], False) == "\na<|im_end|>"
    taken = [token for token, flag in zip(made["input_ids"], made["assistant_masks"], strict=True) if flag]
    assert mine.decode(taken, False) == "\n\n\na<|im_end|>", "mended in transformers: drop this line"
