"""A reward model behind HTTP: POST /score, on this machine unless told otherwise."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

from alignite.errors import AligniteError, ResourceError, UsageError
from alignite.types import Scorer

log = logging.getLogger("alignite")


class _Server(ThreadingHTTPServer):
    """Knows whether requests are being answered, and takes a client that hangs up for what it is."""

    daemon_threads = True

    def __init__(self, *given: Any) -> None:
        self._under_way = 0
        self._changed = threading.Condition()
        super().__init__(*given)

    @contextmanager
    def answering(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def finish(self, seconds: float) -> None:
        """Until nothing is being answered, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("the connection of %s broke", client_address, exc_info=True)


class RewardServer:
    """A running server; use it in a ``with`` block, or call :meth:`close`.

    Args:
        url: such as ``http://127.0.0.1:41234``.
    """

    def __init__(self, server: _Server, timeout: float) -> None:
        self._server, self._timeout = server, timeout
        host, port = server.server_address[:2]
        self.url = f"http://{host if isinstance(host, str) else host.decode()}:{port}"
        self._thread = threading.Thread(target=server.serve_forever, name="alignite-reward", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the server is closed."""
        self._thread.join()

    def close(self) -> None:
        """Stop and give the port back, once the requests under way are answered."""
        self._server.shutdown()
        self._server.finish(self._timeout)
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve_reward(
    model: Scorer,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    max_body_bytes: int = 16 << 20,
    max_pairs: int = 1024,
    timeout: float = 60.0,
) -> RewardServer:
    """Answer POST /score from another thread.

    ``{"pairs": [{"query": text or messages, "response": text or messages}, ...]}`` is answered with
    ``{"scores": [number, ...]}``, one a pair, in order; GET /health with ``{"status": "ok"}``. What is wrong with a
    request is answered with status 400, 404, 411 or 413 and ``{"error": {"type", "message"}}``, with ``reason`` where a
    pair cannot be scored, a failure of the model with 500. Requests are scored one after another. There is no
    encryption and no password: whoever reaches the port may ask, so another host than this machine's is for networks
    that keep others out.

    Args:
        model: gives one score a pair.
        port: 0 takes a free one.
        max_body_bytes, max_pairs: larger requests are refused, too long ones before they are read.
        timeout: seconds that a silent client is waited for, and at closing the requests under way.

    Raises:
        ResourceError: the address cannot be had.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/health":
                self._answer(200, {"status": "ok"})
            else:
                self._refuse(404, "not_found", "POST /score and GET /health are all there is")

        def do_POST(self) -> None:
            with server.answering():
                self._post()

        def _post(self) -> None:
            # Until the body is read, the connection cannot be used again.
            self.close_connection = True
            if self.path != "/score":
                return self._refuse(404, "not_found", "POST /score and GET /health are all there is")
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit():
                return self._refuse(411, "length_required", "give Content-Length")
            if len(length) > 18 or int(length) > max_body_bytes:
                return self._refuse(413, "too_large", f"a request has at most {max_body_bytes} bytes")
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                return self._refuse(400, "bad_request", "the body is shorter than Content-Length")
            self.close_connection = False
            try:
                prompts, completions = _pairs(body, max_pairs)
                with lock:
                    scores = np.asarray(model.score(prompts, completions)) if prompts else np.zeros(0)
                if scores.shape != (len(prompts),) or not np.isfinite(scores).all():
                    raise TypeError(f"the model gives scores of shape {scores.shape}, or some that are not finite")
            except UsageError as error:
                return self._refuse(400, "bad_request", str(error))
            except AligniteError as error:
                log.warning("a request could not be scored: %s", error)
                status = 400 if error.exit_code == 3 else 500
                # The reason alone is what a client counts bad rows by.
                return self._refuse(status, type(error).__name__, str(error), (error.why or error.what).strip())
            except Exception as error:
                log.exception("a request could not be scored")
                return self._refuse(500, "internal_error", f"{type(error).__name__}: {error}")
            self._answer(200, {"scores": scores.tolist()})

        def _refuse(self, status: int, kind: str, message: str, reason: str | None = None) -> None:
            more = {} if reason is None else {"reason": reason}
            self._answer(status, {"error": {"type": kind, **more, "message": message}})

        def _answer(self, status: int, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            log.debug("%s %s", self.address_string(), format % args)

    Handler.timeout = timeout
    try:
        server = _Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise ResourceError(
            "the server cannot listen", where=f"{host}:{port}", why=str(error), fix="choose another port, or 0"
        ) from error
    return RewardServer(server, timeout)


def _pairs(body: bytes, max_pairs: int) -> tuple[list[Any], list[Any]]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UsageError("the body is not JSON", why=str(error), fix='send {"pairs": [...]}') from error
    pairs = value.get("pairs") if isinstance(value, dict) else None
    if not isinstance(pairs, list):
        raise UsageError("the body has no list of pairs", fix='send {"pairs": [{"query": ..., "response": ...}]}')
    if len(pairs) > max_pairs:
        raise UsageError(f"there are {len(pairs)} pairs", fix=f"send at most {max_pairs} at a time")
    for number, pair in enumerate(pairs):
        for name in ("query", "response"):
            said = pair.get(name) if isinstance(pair, dict) else None
            messages = isinstance(said, list) and all(isinstance(message, dict) for message in said)
            if not isinstance(said, str) and not messages:
                raise UsageError(f"{name} of pair {number} is no text and no list of messages", fix="send one of them")
    return [pair["query"] for pair in pairs], [pair["response"] for pair in pairs]
