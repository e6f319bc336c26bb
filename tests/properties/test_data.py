"""Whatever people write, what is scored is what assistants said and the token that ends it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignite.config import SFTConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError
from alignite.native.data import Preparer

# The marks' own code points and control tokens included; lone surrogates are no text.
PIECES = st.sampled_from(
    ["<|im_end|>", "<|im_start|>", "assistant\n", "\U0010f8f1", "\n", "{{ x }}", "🙂", "안녕", "%}"]
)
CONTENT = st.lists(
    st.one_of(PIECES, st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def preparer(tiny_model_folder: Path) -> Preparer:
    return ChatTokenizer.from_folder(tiny_model_folder).preparer(SFTConfig(max_length=100_000))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3))
def test_scored_is_what_was_said(preparer: Preparer, turns: list[tuple[list[str], list[str]]]) -> None:
    messages = []
    for question, answer in turns:
        messages.append({"role": "user", "content": "".join(question)})
        messages.append({"role": "assistant", "content": "".join(answer)})
    ids, labels, dropped = preparer.encode(json.dumps({"messages": messages}).encode())
    if dropped == "an empty reply":
        assert not any("".join(answer).strip() for _, answer in turns)
        return
    if dropped is not None:
        # The one thing that cannot be told apart: the private characters that mark contents while they are rendered.
        assert "private-use" in dropped
        assert any(ord(c) >= 0x100000 for _, answer in turns for c in "".join([*_, *answer]))
        return
    text = preparer.decode(ids.tolist(), False)
    assert text == preparer.render(json.dumps(messages), False)
    said = preparer.decode([label for label in labels.tolist() if label != -100], False)
    assert said == "".join("".join(answer) + "<|im_end|>" for _, answer in turns)
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        assert label in (-100, token)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_break_it(preparer: Preparer, row: bytes) -> None:
    with suppress(DataError):  # nothing else comes out
        preparer.encode(row)
