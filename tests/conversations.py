"""Conversations that reach the corners of chat templates, for tests."""

from __future__ import annotations

from typing import Any

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather.\nWith <b>html</b> & 'quotes' \"too\".",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Où? 서울"},
                    "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                    "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 1e20},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "box": {"type": "object", "properties": {"x": {"type": "number", "default": 1e-07}}},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "the weather"},
        },
    },
    {
        "type": "function",
        "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]
ARGUMENTS: dict[str, Any] = {
    "city": "<서울> & \"x\" 'y'\n",
    "days": 3,
    "big": 2**63,
    "low": -5,
    "ratio": 0.1,
    "whole": 1.0,
    "huge": 1e20,
    "tiny": 1e-07,
    "edge": 1e16,
    "near": 0.0001,
    "flag": True,
    "nothing": None,
    "list": [1, 2.5, "é", None, {"a": []}],
    "map": {"k": "v", "n": {}},
}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def bot(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(arguments: Any, name: str = "get_weather", number: int = 1) -> dict[str, Any]:
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content: Any = "sunny", number: int = 1, name: str = "get_weather") -> dict[str, Any]:
    return {"role": "tool", "name": name, "tool_call_id": f"call{number:05d}", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}
ASK = user("Weather?")

# Name, messages, and how they are rendered.
CASES: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("plain", [user("Hello <b>&'\" there"), bot("ok")], {}),
    ("multi", [user("1"), bot("two"), user("안녕"), bot("네 🙂 \u2028 z\u0301")], {}),
    ("system", [SYSTEM, user("q"), bot("a")], {}),
    ("system only", [SYSTEM], {}),
    ("spaces", [user("  a \n"), bot("\n b \t")], {}),
    ("odd spaces", [user("\u00a0a\u001c"), bot("\u001f b\u0085")], {}),
    ("empty", [user(""), bot("")], {}),
    ("no messages", [], {}),
    ("two users", [user("a"), user("b"), bot("c")], {}),
    ("bot first", [bot("a"), user("b"), bot("c")], {}),
    ("developer", [{"role": "developer", "content": "D"}, user("q"), bot("a")], {}),
    ("strange role", [{"role": "critic", "content": "D"}, user("q")], {}),
    ("late system", [user("q"), SYSTEM, bot("a")], {}),
    (
        "parts",
        [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), bot([{"type": "text", "text": "c"}])],
        {},
    ),
    ("image", [user([{"type": "image"}, {"type": "text", "text": "what?"}]), bot("cat")], {}),
    ("prompt", [SYSTEM, user("q")], {"add_generation_prompt": True}),
    ("prompt later", [user("q"), bot("a"), user("r")], {"add_generation_prompt": True}),
    ("thinking", [user("q"), bot("a", reasoning_content="because <x>")], {}),
    ("thinking 2", [user("q"), bot("a", thinking=" hm\n"), user("r"), bot("b", reasoning="so")], {}),
    ("think in content", [user("q"), bot("<think>\nhm\n</think>\n\na"), user("r"), bot("<think>x</think>b")], {}),
    ("thinking off", [user("q")], {"add_generation_prompt": True, "enable_thinking": False}),
    ("thinking on", [user("q")], {"add_generation_prompt": True, "enable_thinking": True}),
    (
        "thinking name",
        [user("q"), bot("a")],
        {"thinking": True, "reasoning_effort": "high", "add_generation_prompt": True},
    ),
    ("tools", [SYSTEM, ASK], {"tools": TOOLS, "add_generation_prompt": True}),
    ("tools no system", [ASK, bot("rain")], {"tools": TOOLS}),
    ("no tools", [ASK, bot("rain")], {"tools": []}),
    ("call", [ASK, bot("", tool_calls=[call({"city": "Paris"})]), result(), bot("Sunny.")], {"tools": TOOLS}),
    (
        "call no content",
        [ASK, {"role": "assistant", "tool_calls": [call({"city": "Paris"})]}, result(), bot("x")],
        {"tools": TOOLS},
    ),
    ("call null content", [ASK, bot(None, tool_calls=[call({"city": "Paris"})]), result(), bot("x")], {"tools": TOOLS}),
    ("call text", [ASK, bot("Let me see.", tool_calls=[call({"city": "Paris"})])], {"tools": TOOLS}),
    ("call string", [ASK, bot("", tool_calls=[call('{"city": "Paris"}')]), result(), bot("x")], {"tools": TOOLS}),
    ("call last", [ASK, bot("", tool_calls=[call({"city": "Paris"})])], {"tools": TOOLS}),
    (
        "call prompt",
        [ASK, bot("", tool_calls=[call({"city": "P"})]), result()],
        {"tools": TOOLS, "add_generation_prompt": True},
    ),
    ("call kinds", [ASK, bot("", tool_calls=[call(ARGUMENTS)]), result('{"a": 1}'), bot("x")], {"tools": TOOLS}),
    ("call empty", [ASK, bot("", tool_calls=[call({}, "noop")]), result("", name="noop"), bot("x")], {"tools": TOOLS}),
    ("no calls", [ASK, bot("x", tool_calls=[]), user("y"), bot("z", tool_calls=None)], {}),
    (
        "two calls",
        [
            ASK,
            bot("", tool_calls=[call({"city": "A"}), call({"city": "B"}, number=2)]),
            result(),
            result("b", 2),
            bot("x"),
        ],
        {"tools": TOOLS},
    ),
    (
        "think and call",
        [
            ASK,
            bot("", reasoning_content="look up", tool_calls=[call({"city": "A"})]),
            result(),
            bot("x", reasoning_content="done"),
        ],
        {"tools": TOOLS},
    ),
    (
        "bare call",
        [ASK, bot("", tool_calls=[{"name": "get_weather", "arguments": {"city": "A"}}]), result(), bot("x")],
        {"tools": TOOLS},
    ),
    (
        "result kinds",
        [ASK, bot("", tool_calls=[call({"city": "A"})]), result({"t": 1e20, "u": None, "w": -0.0}), bot("x")],
        {"tools": TOOLS},
    ),
    ("continue", [user("q"), bot("The answer")], {"continue_final_message": True}),
    ("continue spaces", [user("q"), bot("The answer is  ")], {"continue_final_message": True}),
    (
        "continue user",
        [
            user("I was"),
        ],
        {"continue_final_message": True},
    ),
    (
        "continue thoughts",
        [user("q"), bot("", reasoning_content="hm")],
        {"continue_final_message": "reasoning_content"},
    ),
    ("documents", [user("q"), bot("a")], {"documents": [{"title": "T", "text": "x <y>", "doc_id": "1"}]}),
    ("variables", [user("q"), bot("a")], {"builtin_tools": ["browser"], "date_string": "1 Jan", "custom_tools": None}),
    (
        "names",
        [{"role": "user", "name": "Ann", "content": "q"}, {"role": "assistant", "name": "B", "content": "a"}],
        {},
    ),
    ("train key", [user("q"), bot("a", train=False, weight=0.5)], {}),
]
