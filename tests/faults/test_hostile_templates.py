"""Chat templates made to hang, fill memory or crash: both engines say no, quickly, and the process lives."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from tiny_model import TEMPLATE, make_tokenizer_json

from alignite.config import SFTConfig
from alignite.data.template_renderer import TemplateRenderer
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import TemplateError
from alignite.native.data import Preparer

DOUBLING = "{% set n = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}"
DATE = (2026, 1, 1)


def again(step: str) -> str:
    """A step that makes text longer, forty times."""
    return f"{{% set n = namespace(x='xxxx') %}}{{% for i in range(40) %}}{{% set n.x = {step} %}}{{% endfor %}}"


HOSTILE = {
    "loops": "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
    "doubling": DOUBLING,
    "tilde": DOUBLING.replace("n.x + n.x", "n.x ~ n.x"),
    "times": "{{ ('x' * 99999) * 99999 }}",
    "list times": "{{ ([1] * 99999) * 99999 }}",
    "replace": again("n.x|replace('x', 'xxxx')"),
    "replace method": again("n.x.replace('x', 'xxxx')"),
    "indent": "{{ 'a\nb'|indent(999999 * 4000) }}",
    "center": "{{ 'x'|center(999999 * 3000) }}",
    "center method": "{{ 'x'.center(999999 * 3000) }}",
    "zfill": "{{ 'x'.zfill(999999 * 3000) }}",
    "ljust": "{{ 'x'.ljust(999999 * 3000) }}",
    "join": again("[n.x, n.x, n.x]|join(n.x)"),
    "join method": again("n.x.join([n.x, n.x])"),
    "format": "{{ '%999999999d'|format(1) }}",
    "format method": "{{ '{:>999999999}'.format(1) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "tojson indent": "{{ [[1]]|tojson(indent=999999 * 4000) }}",
    "range": "{{ range(999999 * 9999)|list }}",
    "nesting": (
        "{% set n = namespace(x=[]) %}{% for a in range(500) %}{% for i in range(900) %}{% set n.x = [n.x] %}"
        "{% endfor %}{% endfor %}{{ n.x }}"
    ),
    "nesting of namespaces": (
        "{% set n = namespace(x=1) %}{% for a in range(500) %}{% for i in range(900) %}"
        "{% set n.x = namespace(x=n.x) %}{% endfor %}{% endfor %}"
    ),
    "lazy lists": (
        "{% set n = namespace(x=[1]) %}{% for a in range(500) %}{% for i in range(900) %}"
        "{% set n.x = n.x|map('string') %}{% endfor %}{% endfor %}{{ n.x|list }}"
    ),
    "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "wide recursion": "{% macro f(x) %}{% if x %}{{ f(x - 1) }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "power": "{{ 9999 ** 9999 ** 99 }}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "not": "{{ " + "not " * 20_000 + "1 }}",
    "minus": "{{ " + "-" * 20_000 + "1 }}",
    "short not": "{{ " + "not " * 1_900 + "1 }}",
    "elif": "{% if a %}" + "{% elif a %}" * 20_000 + "{% endif %}",
    "short elif": "{% if a %}" + "{%elif a%}" * 5_000 + "{% endif %}",
    "filters": "{{ a" + "|upper" * 50_000 + " }}",
    "short filters": "{{ a" + "|upper" * 1_300 + " }}",
    "dots": "{{ a" + ".a" * 50_000 + " }}",
    "brackets": "{{ " + "[" * 4_000 + "]" * 4_000 + " }}",
    "blocks": "{% if a %}" * 2_000 + "{% endif %}" * 2_000,
    "unrolled nesting": "{% set x = [] %}" + "{%set x=[x]%}" * 4_900 + "{{ x }}",
    "megabytes": "x" * 5_000_000,
}


def preparer(template: str, native: bool = True, renderer: TemplateRenderer | None = None) -> Preparer:
    options = {
        "max_length": 1000,
        "packing": "none",
        "prompt_column": None,
        "completion_column": None,
        "apply_chat_template": True,
        "on_bad_row": "error",
        "template_date": DATE,
        "eos_token": "<|im_end|>",
    }
    return Preparer(make_tokenizer_json(), template, {}, json.dumps(options), renderer, native=native)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_soon(name: str) -> None:
    """In the Rust engine alone, on a thread; and as they are loaded, with jinja2 to help."""
    template = HOSTILE[name] + TEMPLATE
    done: list[object] = []

    def alone() -> None:
        try:
            done.append(preparer(template).render(json.dumps([{"role": "user", "content": "x"}])))
        except TemplateError as error:
            done.append(error)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    assert isinstance(done[0], TemplateError) or name in ("unrolled nesting", "tojson indent", "recursion")
    started = time.process_time()
    tokenizer = ChatTokenizer(Path("hostile"), make_tokenizer_json(), template, {}, (0,), 0)
    with pytest.raises(TemplateError):
        tokenizer.preparer(SFTConfig())
    # Processor time: the machine may be busy.
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in ("recursion", "lazy lists")])
def test_hostile_templates_end_in_the_helper_process(name: str) -> None:
    children = os.times().children_user
    renderer = TemplateRenderer(HOSTILE[name], DATE)
    try:
        text = renderer.render([], {}, False)
    except TemplateError:
        pass
    else:
        assert len(text) < 32 << 20
    assert os.times().children_user - children < 2
    # The next template has a process again.
    assert TemplateRenderer("{{ 1 + 1 }}", DATE).render([], {}, False) == "2"


def test_a_row_that_takes_too_much_in_jinja2_is_an_error_of_that_row() -> None:
    slow = "{% if messages[0].content == 'slow' %}" + HOSTILE["loops"] + "{% endif %}" + TEMPLATE
    chat = preparer(slow, native=False, renderer=TemplateRenderer(slow, DATE))
    assert chat.renders()[0] is False
    for _ in range(2):
        with pytest.raises(TemplateError, match="takes too much"):
            chat.render(json.dumps([{"role": "user", "content": "slow"}]))
        assert "quick" in chat.render(json.dumps([{"role": "user", "content": "quick"}]))


def test_jinja2_renders_and_masks_what_rust_does_not() -> None:
    template = TEMPLATE.replace("{{ message['content'] }}", "{{ '%s' % message['content'] }}")
    tokenizer = ChatTokenizer(Path("outside"), make_tokenizer_json(), template, {}, (0,), 0)
    chat = tokenizer.preparer(SFTConfig(template_date="2026-01-01"))
    rows = [{"role": "user", "content": "q"}, {"role": "assistant", "content": " a <|im_end|> "}]
    text, spans = chat.scored(json.dumps(rows))
    expected = preparer(TEMPLATE).scored(json.dumps(rows))
    assert (text, spans) == expected
    assert chat.renders()[1] > 0


def test_a_template_that_rust_renders_otherwise_is_rendered_by_jinja2(caplog: pytest.LogCaptureFixture) -> None:
    # A float that the template makes, not the row: Python writes 1e+20.
    template = "{{ 100000.0 * 100000.0 * 100000.0 * 100000.0 }}" + TEMPLATE
    tokenizer = ChatTokenizer(Path("outside"), make_tokenizer_json(), template, {}, (0,), 0)
    chat = tokenizer.preparer(SFTConfig(template_date="2026-01-01"))
    assert "jinja2 renders the chat template" in caplog.text
    assert len(caplog.records) == 1
    assert chat.render(json.dumps([{"role": "user", "content": "q"}])).startswith("1e+20<|im_start|>")


def test_forked_processes_have_their_own_helper() -> None:
    renderer = TemplateRenderer("{{ messages[0] }}", DATE)
    assert renderer.render([1], {}, False) == "1"  # type: ignore[list-item]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if renderer.render([2], {}, False) == "2" else 1)  # type: ignore[list-item]
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert renderer.render([3], {}, False) == "3"  # type: ignore[list-item]
