"""A chat template is exact or refused: what Rust renders must be what transformers would.

transformers renders with jinja2 in a sandbox. Probe conversations go through
both when a template is loaded. jinja2 runs in a process of its own that may be
killed, because templates come from strangers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from alignite.data.template_renderer import TemplateRenderer
from alignite.errors import AligniteError, TemplateError

_USER = {"role": "user", "content": "Hello <b>&'\" there"}
_PROBES: tuple[list[dict[str, Any]], ...] = (
    [_USER],
    [{"role": "user", "content": " hi\n"}, {"role": "assistant", "content": "\n ok "}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "안녕"},
        {"role": "assistant", "content": "네 🙂"},
    ],
    [_USER, {"role": "assistant", "content": ""}],
)
_REASONING: tuple[list[dict[str, Any]], ...] = (
    [
        _USER,
        {"role": "assistant", "content": "a", "reasoning_content": " so\n"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "<think>\nx\n</think>\n\ny"},
    ],
)
_ARGUMENTS = {
    "s": "<é>'\"\n",
    "i": -3,
    "f": 1e-07,
    "g": 1e20,
    "h": 2.0,
    "b": True,
    "n": None,
    "l": [1, "x", {}],
    "d": {"items": 1},
}
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does <it>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "s": {"type": "string", "description": "é", "enum": ["a", "b"]},
                    "l": {"type": "array", "items": {"type": ["integer", "null"]}, "default": [1e20]},
                },
                "required": ["s"],
            },
        },
    }
]


def _calls(arguments: Any, content: Any) -> list[dict[str, Any]]:
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": arguments}}
    caller = {"role": "assistant", "content": content, "tool_calls": [call, call]}
    result = {"role": "tool", "name": "f", "tool_call_id": "call00001", "content": "1 < 2"}
    return [_USER, caller, result, {"role": "assistant", "content": "done"}]


def _probes(source: str) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Conversations and what the template is given beside them, for what the template mentions."""
    for messages in _PROBES:
        yield messages, {}
    if "reason" in source or "think" in source:
        for messages in _REASONING:
            yield messages, {}
        yield [_USER], {"enable_thinking": False}
    if "tool" in source:
        yield [_USER], {"tools": _TOOLS}
        for arguments in (_ARGUMENTS, {}, json.dumps({"s": "x"})):
            yield _calls(arguments, ""), {"tools": _TOOLS}
        yield _calls({"s": "x"}, "Let me see.")[:2], {"tools": _TOOLS}
    if "documents" in source:
        yield [_USER], {"documents": [{"title": "t", "text": "<x>"}]}


def check_template(
    source: str,
    special_tokens: Mapping[str, str],
    renderer: TemplateRenderer,
    render: Callable[[str, bool, str], str],
) -> str | None:
    """Compare ``render`` (messages as JSON, add_generation_prompt, options as JSON) with jinja2 on the probes.

    Returns:
        How the first probe differs that does, or None. A probe that both fail on is the same.

    Raises:
        TemplateError: a probe exceeds a limit, or both fail on all.
    """
    refused: AligniteError | None = None
    agreed = False
    for messages, given in _probes(source):
        for prompt in (False, True):
            variables = dict(given)
            options = {name: variables.pop(name) for name in ("tools", "documents") if name in variables}
            try:
                ours: str | None = render(json.dumps(messages), prompt, json.dumps({**options, "variables": variables}))
            except AligniteError as error:
                ours, refused = None, error
                if "too many steps" in error.what or "too much" in error.what:
                    raise
            try:
                theirs: str | None = renderer.render(
                    _as_transformers_gives(messages), {**special_tokens, **given}, prompt
                )
            except TemplateError as error:
                if "too much" in error.what or "refused" in error.what:
                    raise
                theirs, reason = None, error.why or error.what
            else:
                reason = ""
            if ours != theirs:
                return reason or (_cause(refused) if ours is None else _difference(ours, theirs or ""))
            agreed = agreed or ours is not None
    if not agreed:
        raise TemplateError(
            "the chat template fails on every probe conversation",
            why=_cause(refused),
            fix="mend the template, or set apply_chat_template to false for raw text",
        )
    return None


def _cause(error: AligniteError | None) -> str:
    """One line: an error's own text has a why and a fix of its own."""
    return (error.why or error.what) if error else ""


def _as_transformers_gives(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasoning under all of the names that templates read; none of the probes holds None."""
    given = []
    for message in messages:
        reasoning = message.get("reasoning_content")
        given.append({"thinking": reasoning, **message} if reasoning is not None else message)
    return given


def _difference(ours: str, theirs: str) -> str:
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    around = slice(max(0, at - 20), at + 40)
    return f"{ours[around]!r} is not {theirs[around]!r}"
