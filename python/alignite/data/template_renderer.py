"""jinja2 in a helper process, for chat templates that the Rust engine does not render as transformers does."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from alignite.errors import TemplateError

_WORKER = Path(__file__).with_name("template_worker.py")
# The worker limits its own processor time; this is for one that is stuck without using any.
_WALL_SECONDS = 60.0
_MAX_SOURCE = 64 << 10


class _Worker:
    """One process for all templates, started when it is first needed and again after it died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._known: set[str] = set()

    def ask(self, key: str, source: str, date: tuple[int, int, int], request: str) -> dict[str, str]:
        with self._lock:
            self._start()
            if key not in self._known:
                loaded = self._exchange(json.dumps({"key": key, "source": source, "date": date}))
                if "text" not in loaded:
                    return loaded
                self._known.add(key)
            return self._exchange(f'{{"key": {json.dumps(key)}, "request": {request}}}')

    def _start(self) -> None:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return
        self.close()
        # Nothing of our environment but where packages are: a template that broke out would find no tokens.
        # -P: the folder of the worker's file, which has modules of its own, stays out of the path.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
            bufsize=0,
        )
        self._owner = os.getpid()
        self._known.clear()

    def _exchange(self, line: str) -> dict[str, str]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        died = {"limit": "it takes too much time or memory, and its process was ended"}
        try:
            rest = memoryview(line.encode() + b"\n")
            while rest:
                rest = rest[process.stdin.write(rest) :]
        except BrokenPipeError:
            self.close()
            return died
        until = time.monotonic() + _WALL_SECONDS
        chunks: list[bytes] = []
        while True:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            chunk = process.stdout.read(1 << 20) if ready else b""
            if not chunk:
                self.close()
                return died
            chunks.append(chunk)
            if chunk.endswith(b"\n"):
                break
        reply: dict[str, str] = json.loads(b"".join(chunks))
        if "limit" in reply:
            self.close()
        return reply

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if self._owner == os.getpid():
            process.kill()
            process.wait()
        else:
            # The parent's: this process was forked, and has only closed its ends of the pipes.
            process.returncode = 0


_worker = _Worker()
atexit.register(_worker.close)
# A fork may come while another thread holds the lock, and its copy would never be let go.
os.register_at_fork(after_in_child=lambda: setattr(_worker, "_lock", threading.Lock()))


class TemplateRenderer:
    """Calls jinja2 for one template.

    Args:
        source: the chat template.
        date: what ``strftime_now`` sees, (year, month, day).

    It is called with a request as ``alignite_data::template::Renderer`` describes it, and returns the text.

    Raises:
        TemplateError: the template does not compile, raises, or takes more than half a second of processor time,
            768 MiB of memory or 32 MiB of output; ``what`` says which.
    """

    def __init__(self, source: str, date: tuple[int, int, int]) -> None:
        self._source = source
        self._date = date
        self._key = hashlib.sha256(json.dumps([source, date]).encode()).hexdigest()

    def __call__(self, request: str) -> str:
        if len(self._source.encode()) > _MAX_SOURCE:
            raise TemplateError("the chat template is refused", why=f"it is longer than {_MAX_SOURCE} bytes")
        reply = _worker.ask(self._key, self._source, self._date, request)
        if "text" in reply:
            return reply["text"]
        if "limit" in reply:
            raise TemplateError("the chat template takes too much in jinja2", why=reply["limit"])
        raise TemplateError("the chat template fails on this conversation", why=reply["error"])

    def render(self, messages: list[dict[str, Any]], variables: dict[str, Any], add_generation_prompt: bool) -> str:
        """The text of a conversation; ``tools`` and ``documents`` may be among the variables."""
        variables = dict(variables)
        request = {
            "messages": messages,
            "tools": variables.pop("tools", None),
            "documents": variables.pop("documents", None),
            "add_generation_prompt": add_generation_prompt,
            "marked": False,
            "variables": variables,
        }
        return self(json.dumps(request))
