"""Renders chat templates with jinja2 in a process that may be killed: the other end of ``template_renderer``.

It is run as a file and imports nothing of alignite. Requests and replies are
lines of JSON on standard input and output. Templates are untrusted: memory and
the processor time of each request are limited by the system, and death is an
answer.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 768 << 20
SECONDS = 0.5
MAX_OUTPUT = 32 << 20
# The marks of rust/data/src/template.rs around what {% generation %} holds.
MARKS = ("\U0010f8f3", "\U0010f8f4")


class Dict:
    """``dict`` without its attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class Namespace(jinja2.utils.Namespace):
    """A namespace without names that start with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        space, *rest = args
        names = dict(*rest, **kwargs)
        for name in names:
            _check_name(name)
        jinja2.utils.Namespace.__init__(space, names)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


class Generation(Extension):
    """``{% generation %}``: its body, with marks around it when they are asked for."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own protocol

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_body", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, context: Any, caller: Any) -> str:
        text = str(caller())
        return f"{MARKS[0]}{text}{MARKS[1]}" if context.get("__marked") else text


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def compile_template(source: str, date: tuple[int, int, int]) -> jinja2.Template:
    """A template in transformers' environment, with a clock that stands still."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = datetime(*date).strftime
    environment.globals["dict"] = Dict()
    environment.globals["namespace"] = Namespace
    # Random text, as much as is asked for: not a thing that training data may depend on.
    del environment.globals["lipsum"]
    return environment.from_string(source)


def answer(templates: dict[str, jinja2.Template], request: dict[str, Any]) -> dict[str, str]:
    """The reply to one request: to compile a template under a key, or to render with it."""
    try:
        if "source" in request:
            templates[request["key"]] = compile_template(request["source"], tuple(request["date"]))
            return {"text": ""}
        given = request["request"]
        text = templates[request["key"]].render(
            **given["variables"],
            messages=given["messages"],
            tools=given["tools"],
            documents=given["documents"],
            add_generation_prompt=given["add_generation_prompt"],
            __marked=given["marked"],
        )
        if len(text) > MAX_OUTPUT:
            return {"limit": "it writes more than 32 MiB"}
        text.encode()
        return {"text": text}
    except MemoryError:
        return {"limit": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except RecursionError:
        return {"limit": "it nests too deep"}
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        return {"error": str(error)[:2000] or repr(error)[:2000]}


def main() -> None:
    """Answer until standard input ends, or a limit ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    templates: dict[str, jinja2.Template] = {}
    for line in sys.stdin.buffer:
        # Processor time, so that a busy machine is no fault of the template. The signal kills even inside of C code.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        reply = answer(templates, json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()
        if "limit" in reply:
            return


if __name__ == "__main__":
    main()
