"""A server on this machine that speaks the OpenAI protocol with log-probabilities, scores pairs, fails on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a reply function may return: a text, or log-probabilities of the answer's one token.
Reply = str | Mapping[str, float]


class StubServer:
    """Answers ``/v1/chat/completions`` by ``reply(last message)`` and ``/score`` by ``score(query, response)``.

    ``faults`` are used up first, one a request: a status (with ``headers`` from ``fault_headers``), or ``stall``,
    ``drip``, ``close``, ``short``, ``garbage``, ``html``, ``list``, ``huge``, ``redirect``.
    """

    def __init__(self, reply: Callable[[str], Reply], score: Callable[[str, str], Any]) -> None:
        self.reply, self.score = reply, score
        self.faults: list[int | str] = []
        self.fault_headers: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.pause = 0.0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                stub.send(self, 404, b"{}")

            def do_POST(self) -> None:
                stub.answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # a client that gave up
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length") or 0)))
        with self.lock:
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            fault = self.faults.pop(0) if self.faults else None
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        if self.pause:
            time.sleep(self.pause)
        with self.lock:
            self.at_once -= 1
        if fault is not None:
            return self.fail(request, fault)
        if request.path.endswith("/score"):
            scores = [self.score(pair["query"], pair["response"]) for pair in body["pairs"]]
            return self.send(request, 200, json.dumps({"scores": scores}).encode())
        if request.path.endswith("/v1/chat/completions"):
            return self.send(request, 200, json.dumps(self.completion(body)).encode())
        return self.send(request, 404, b'{"error": "no such path"}')

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        reply = self.reply(body["messages"][-1]["content"])
        tops = {reply: 0.0} if isinstance(reply, str) else dict(reply)
        text = max(tops, key=lambda token: tops[token])
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
            "logprobs": None,
        }
        if body.get("logprobs"):
            listed = sorted(tops.items(), key=lambda pair: -pair[1])[: body["top_logprobs"]]
            top = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in listed]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        return {"id": "stub", "object": "chat.completion", "model": body["model"], "choices": [choice]}

    def fail(self, request: BaseHTTPRequestHandler, fault: int | str) -> None:
        if isinstance(fault, int):
            return self.send(request, fault, b'{"error": "on demand"}', self.fault_headers)
        if fault == "redirect":
            return self.send(request, 302, b"", {"Location": self.url + "/elsewhere"})
        answers = {
            "garbage": b"\xff\x00{",
            "html": b"<html>proxy</html>",
            "list": b"[1]",
            "huge": b" " * 200_000 + b"{}",
        }
        if fault in answers:
            return self.send(request, 200, answers[fault])
        request.close_connection = True
        if fault == "stall":
            self.closing.wait(30)
        elif fault == "short":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        elif fault == "drip":
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
            while not self.closing.wait(0.05):
                request.wfile.write(b" ")
                request.wfile.flush()
        return None  # "close" says nothing at all

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def stub_server(
    reply: Callable[[str], Reply] = lambda prompt: "yes",
    score: Callable[[str, str], Any] = lambda query, response: float(len(response)),
) -> Iterator[StubServer]:
    stub = StubServer(reply, score)
    try:
        yield stub
    finally:
        stub.close()
