"""A chat template is exact or refused: what Rust renders must be what transformers would.

transformers renders with jinja2 in a sandbox. Probe conversations go through
both when a template is loaded; Rust goes first, under its limits on steps and
output, so that a template made to hang never reaches jinja2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from alignite.errors import AligniteError, TemplateError

PROBES: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "Hello <b>&'\" there"},),
    ({"role": "user", "content": " hi\n"}, {"role": "assistant", "content": "\n ok "}),
    (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "안녕"},
        {"role": "assistant", "content": "네 🙂"},
    ),
)

_FIX = "mend the template, or set apply_chat_template to false for raw text"


def check_template(
    source: str, special_tokens: Mapping[str, str], date: tuple[int, int, int], render: Callable[[str, bool], str]
) -> None:
    """Compare ``render`` (messages as JSON, add_generation_prompt) with jinja2 on the probes.

    Raises:
        TemplateError: a probe renders differently, or only one of the two fails on it, or both fail on all.
    """
    try:
        template = _environment(date).from_string(source)
    except Exception as error:
        raise TemplateError("jinja2 does not compile the chat template", why=repr(error), fix=_FIX) from error
    refused: AligniteError | None = None
    agreed = False
    for probe in PROBES:
        for prompt in (False, True):
            try:
                ours: str | None = render(json.dumps(probe), prompt)
            except AligniteError as error:
                ours, refused = None, error
            if ours is None and refused is not None and ("steps" in refused.what or "too much" in refused.what):
                raise refused
            try:
                theirs: str | None = template.render(
                    messages=[dict(message) for message in probe],
                    tools=None,
                    documents=None,
                    add_generation_prompt=prompt,
                    **special_tokens,
                )
            except Exception as error:  # noqa: BLE001 - a template may raise anything
                theirs, reason = None, str(error)
            else:
                reason = ""
            if ours != theirs:
                shown = reason or (str(refused) if ours is None else f"{ours!r} is not {theirs!r}")
                raise TemplateError(
                    "the chat template does not render as it does in transformers",
                    why=shown,
                    fix="simplify the template; conversations would otherwise be trained on in another form",
                )
            agreed = agreed or ours is not None
    if not agreed:
        raise TemplateError("the chat template fails on every probe conversation", why=str(refused), fix=_FIX)


def _environment(date: tuple[int, int, int]) -> Any:
    """transformers' environment for chat templates, with a clock that stands still."""
    from jinja2 import TemplateError as JinjaError
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return str(caller())

    def raise_exception(message: str) -> None:
        raise JinjaError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = datetime(*date).strftime
    return environment
