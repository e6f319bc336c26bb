"""What Python's ``repr`` escapes, and text beyond ASCII in filters: as jinja2 renders it."""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path

import pytest
from test_templates import SPECIAL_TOKENS, make_tokenizer, ours, theirs

from alignite.config import SFTConfig
from alignite.data.tokenizer import ChatTokenizer
from alignite.native.data import Preparer

TELLING = (
    "\u200d\u00a0\u00ad\u3000\u2009\u200b\ufeff\u2028\u061c\ue000\U0001fae8\U0001fadf\U000e0001\x1c\x85'\"\\\né🙂한ß"
)


def preparer(source: str) -> Preparer:
    tokenizer = ChatTokenizer(Path("t"), make_tokenizer("").to_str().encode(), source, SPECIAL_TOKENS, (0,), 0)
    return tokenizer.preparer(SFTConfig(template_date=date.today().isoformat(), max_length=100_000))


def texts() -> list[str]:
    rng = random.Random(1)
    made = [f"a{c}b" for c in TELLING] + [TELLING]
    for _ in range(40):
        codes = (rng.choice([rng.randrange(0x20, 0x3100), rng.randrange(0xE000, 0x20000)]) for _ in range(6))
        made.append("".join(map(chr, codes)))
    return made


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages }}",
        "{{ [messages[0].content] }}",
        "{{ messages[0].content ~ messages[0] }}",
        "{{ messages[0] | string }}{{ messages[0] | tojson }}",
        "{{ messages[0].content | trim }}{{ tools }}",
    ],
)
def test_lists_and_objects_are_printed_as_in_python(source: str) -> None:
    made = preparer(source)
    for text in texts():
        talk = [{"role": "user", "content": text}]
        how = {"tools": [{"name": text, text: 1}]}
        assert ours(made, talk, how) == theirs(source, talk, how), ascii(text)


def test_plain_contents_stay_with_the_rust_engine() -> None:
    source = "{% for m in messages %}{{ m.content | trim }}{{ m | tojson }}{% endfor %}"
    made = preparer(source)
    for text in texts():
        talk = [{"role": "user", "content": text}]
        assert ours(made, talk, {}) == theirs(source, talk, {}), ascii(text)
    assert made.renders() == (True, 0)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content | title }}",
        "{{ messages[0].content.split(' ') | sort | join('.') }}",
        "{{ messages[0].content.split(' ') | unique | join('.') }}",
        "{{ messages | sort(attribute='content') | map(attribute='content') | join('.') }}",
        "{% for k, v in messages[0] | dictsort(by='value') %}{{ k }}{% endfor %}",
    ],
)
def test_filters_case_text_as_python(source: str) -> None:
    made = preparer(source)
    for text in ("don't a\x1cb", "ΟΔΟΣ ΟΔΟΣ.", "ﬁ fa fz", "ß sa sz ss SS", "b A c B", "é E e É", "z-y (x", "ǆ Ǆ"):
        talk = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
        assert ours(made, talk, {}) == theirs(source, talk, {}), ascii(text)
    assert json.dumps(made.renders())
