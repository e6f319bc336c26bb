"""A Chromium that is installed, driven through its debugging pipe: no driver, no port, no package.

Where none is installed :func:`find` says so and the tests read pages with html.parser. None is ever fetched.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LOOK = """(() => {
  const box = (node) => { const r = node.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; };
  const paths = [...document.querySelectorAll('.plot path.line')];
  return JSON.stringify({
    text: document.body.innerText,
    html: document.documentElement.outerHTML,
    charts: [...document.querySelectorAll('.plot > svg')].map(box),
    lines: paths.map(box),
    strokes: paths.map((node) => getComputedStyle(node).stroke),
    ticks: [...document.querySelectorAll('.plot text.tick')].map(box),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    paper: getComputedStyle(document.body).backgroundColor,
  });
})()"""


@dataclass
class Page:
    """A page as it was shown: its text, boxes as (left, top, width, height) in pixels, and what went wrong."""

    text: str
    html: str = ""
    charts: list[list[float]] = field(default_factory=list)
    lines: list[list[float]] = field(default_factory=list)
    strokes: list[str] = field(default_factory=list)
    ticks: list[list[float]] = field(default_factory=list)
    overflow: float = 0
    paper: str = ""
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    tip: str = ""


def find() -> str | None:
    """The program, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


class Browser:
    """One browser for several pages; a context manager."""

    def __init__(self, program: str, home: Path) -> None:
        ours, self._out = os.pipe()
        self._in, theirs = os.pipe()
        command = [program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={home}", "--disable-gpu"]
        command += ["--no-first-run", "--disable-extensions", "--disable-background-networking", "--hide-scrollbars"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to set up for root
        # The browser reads commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{ours} 4>&{theirs}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command, "about:blank"],
            pass_fds=(ours, theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours)
        os.close(theirs)
        self._left, self._number, self._events = b"", 0, list[dict[str, Any]]()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)

    def show(self, file: Path, width: int, scheme: str = "light", picture: Path | None = None) -> Page:
        """Open a local page ``width`` pixels wide in the ``light`` or ``dark`` scheme, and touch its first chart."""
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable", {}, session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", size, session)
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._send("Emulation.setEmulatedMedia", wanted, session)
        self._send("Page.navigate", {"url": file.as_uri()}, session)
        self._wait("Page.loadEventFired")
        found = json.loads(self._evaluate(_LOOK, session))
        tip = self._touch(session) if found["charts"] else ""
        if picture is not None:
            shot = self._send("Page.captureScreenshot", {"captureBeyondViewport": True}, session)
            picture.write_bytes(base64.b64decode(shot["data"]))
        errors, requests = [], []
        for event in self._events:
            name, values = event["method"], event["params"]
            if name in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                errors.append(json.dumps(values)[:400])
            elif name == "Network.requestWillBeSent":
                requests.append(values["request"]["url"])
        self._send("Target.closeTarget", {"targetId": target})
        return Page(**found, errors=errors, requests=requests, tip=tip)

    def _touch(self, session: str) -> str:
        """What the reading line says in the middle of the first chart."""
        self._evaluate("document.querySelector('.plot').scrollIntoView()", session)
        box = json.loads(
            self._evaluate("JSON.stringify(document.querySelector('.plot > svg').getBoundingClientRect())", session)
        )
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        self._send("Input.dispatchMouseEvent", {"type": "mouseMoved", **place}, session)
        tip: str = self._evaluate("document.querySelector('.tip')?.innerText ?? ''", session)
        self._send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 0, "y": 0}, session)
        return tip

    def _evaluate(self, code: str, session: str) -> Any:
        answer = self._send("Runtime.evaluate", {"expression": code, "returnByValue": True}, session)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _send(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        number = self._number
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _wait(self, method: str) -> None:
        while not any(event["method"] == method for event in self._events):
            self._read()

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + 60
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._in, 1 << 20) if ready else b""
            assert piece, "the browser does not answer"
            self._left += piece
        whole, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(whole)
        if "method" in message:
            self._events.append(message)
        return message


class PageParser(HTMLParser):
    """What a page says and is made of, without a browser."""

    VOID = ("meta", "link")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.pieces.append(data)
            if "td" in self.open or "th" in self.open:
                self.tables[-1][-1][-1] += data
