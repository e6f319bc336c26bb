"""The one HTTP client: chat completions of OpenAI-compatible servers with log-probabilities, and reward servers."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from alignite.errors import AligniteError, DataError, ResourceError, UsageError
from alignite.files import write_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Answers that may be others the next time; the rest of 4xx says that the request is wrong.
_PASSING = frozenset({408, 409, 425, 429})
_LONGEST_WAIT = 60.0
_CHUNK = 1 << 16
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class HttpClient:
    """POST of JSON, with retries, a deadline, bounds on size and concurrency, and a cache. Safe to share by threads.

    Args:
        url: of the server, ``http`` or ``https``; paths are put behind it.
        api_key: sent as a bearer token; never stored or shown.
        timeout: seconds for one whole attempt.
        retries: attempts after the first one, when the server cannot be reached, breaks off, is busy or fails (5xx).
        backoff: seconds before the first retry; doubled each time, a quarter of it by chance, a minute at most. A
            server's Retry-After is kept to within that minute.
        concurrency: requests under way at the same time.
        max_bytes: the largest answer that is read.
        cache: a folder; the same request gets the same answer from there, also when it was sampled.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
        backoff: float = 1.0,
        concurrency: int = 8,
        max_bytes: int = 64 << 20,
        cache: str | Path | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if host is None or parts.scheme not in ("http", "https"):
            raise UsageError(f"{url!r} is no server's URL", fix="write it as http://127.0.0.1:8000/v1")
        if not (timeout > 0 and retries >= 0 and backoff >= 0 and concurrency >= 1 and max_bytes >= 1):
            raise UsageError(
                "an option of the client is out of range",
                where=url,
                fix="timeout, concurrency and max_bytes are positive, retries and backoff 0 or more",
            )
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout, self._retries, self._backoff, self._max_bytes = timeout, retries, backoff, max_bytes
        self.concurrency = concurrency
        self._slots = threading.BoundedSemaphore(concurrency)
        self._cache = None if cache is None else Path(cache)
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if host in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._sleep: Callable[[float], None] = time.sleep

    def post(self, path: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The object that the server answers with.

        Raises:
            UsageError: the payload is no JSON, or the server refuses the request.
            ResourceError: the server cannot be reached, does not answer in time, or keeps failing.
            DataError: the answer is no JSON object, or too large.
        """
        try:
            body = json.dumps(payload, sort_keys=True, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise UsageError("the request cannot be written as JSON", where=self.url, why=str(error)) from error
        file = self._cache_file(path, body)
        if file is not None and (kept := _read_kept(file)) is not None:
            return kept
        answer = self._attempts(path, body)
        if file is not None:
            write_file(file, json.dumps(answer))
        return answer

    def _cache_file(self, path: str, body: bytes) -> Path | None:
        if self._cache is None:
            return None
        key = hashlib.sha256(f"{self.url}\n{path}\n".encode() + body).hexdigest()
        return self._cache / key[:2] / f"{key}.json"

    def _attempts(self, path: str, body: bytes) -> dict[str, Any]:
        for attempt in range(self._retries + 1):
            try:
                with self._slots:
                    return self._once(path, body)
            except _PassingError as error:
                if attempt == self._retries:
                    raise ResourceError(
                        f"the server gives no answer after {attempt + 1} attempts",
                        where=self.url + path,
                        why=error.reason,
                        fix="check that the server runs and is not overloaded, or raise timeout and retries",
                    ) from error
                wait = self._backoff * 2**attempt * random.uniform(0.75, 1.0)
                self._sleep(min(max(wait, error.wait), _LONGEST_WAIT))
        raise AssertionError  # the loop returns or raises

    def _once(self, path: str, body: bytes) -> dict[str, Any]:
        where = self.url + path
        request = urllib.request.Request(where, body, self._headers, method="POST")
        deadline = time.monotonic() + self._timeout
        with _passing():
            try:
                with self._opener.open(request, timeout=self._timeout) as response:
                    content = self._read(response, where, deadline)
            except urllib.error.HTTPError as error:
                with error:
                    self._refused(error, where)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(
                "the server's answer is no JSON",
                where=where,
                why=f"it begins with {content[:60]!r}",
                fix="check that the URL is an API's, such as one that ends with /v1",
            ) from error
        if not isinstance(answer, dict):
            raise DataError("the server's answer is no JSON object", where=where, why=f"it is {answer!r:.60}")
        return answer

    def _read(self, response: Any, where: str, deadline: float) -> bytes:
        content = bytearray()
        while chunk := response.read1(_CHUNK):
            content += chunk
            if len(content) > self._max_bytes:
                raise DataError(
                    f"the server's answer is larger than {self._max_bytes} bytes", where=where, fix="raise max_bytes"
                )
            # The socket's own timeout starts anew with every byte.
            if time.monotonic() > deadline:
                raise TimeoutError(f"no whole answer within {self._timeout:g} s")
        if response.length:  # read1 ends quietly where the server breaks off
            raise http.client.IncompleteRead(bytes(content[:0]), response.length)
        return bytes(content)

    def _refused(self, error: urllib.error.HTTPError, where: str) -> None:
        content = _beginning(error.fp)
        refused = _refused_data(content) if error.code == 400 else None
        if refused is not None:
            raise DataError("the server cannot score what it was sent", where=where, why=refused) from error
        said = content[:300]
        reason = f"it answers {error.code}" + (f": {said}" if said else "")
        if error.code >= 500 or error.code in _PASSING:
            raise _PassingError(reason, _retry_after(error.headers.get("Retry-After"))) from error
        fix = {401: "set api_key", 403: "set api_key", 404: "check the URL and the model's name"}.get(error.code)
        raise UsageError("the server refuses the request", where=where, why=reason, fix=fix) from error


class _PassingError(Exception):
    """What may be otherwise at the next attempt."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        self.reason, self.wait = reason, wait
        super().__init__(reason)


@contextmanager
def _passing() -> Iterator[None]:
    try:
        yield
    except (AligniteError, _PassingError):
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _PassingError(f"{type(reason).__name__}: {reason}") from error


def _beginning(body: IO[bytes] | None) -> str:
    try:
        return body.read(4096).decode(errors="replace").strip() if body is not None else ""
    except (OSError, http.client.HTTPException):
        return ""


def _refused_data(content: str) -> str | None:
    """Why a reward server of ours says that a pair is bad; None where the answer says something else."""
    try:
        error = json.loads(content)["error"]
        found = error["reason"] if error["type"] in ("DataError", "TemplateError", "MaskError") else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _retry_after(header: str | None) -> float:
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def _read_kept(file: Path) -> dict[str, Any] | None:
    """A kept answer; None when there is none or it is damaged, and the server is asked again."""
    try:
        kept = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


@dataclass(frozen=True)
class Token:
    """A generated token, its log-probability in nats, and those of the likeliest ones in its place."""

    text: str
    logprob: float
    top: Mapping[str, float]


@dataclass(frozen=True)
class Completion:
    """What a model wrote; ``tokens`` are empty unless log-probabilities were asked for. ``str()`` gives the text."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.text


Message = Mapping[str, Any]


class ChatClient:
    """Chat completions of an OpenAI-compatible server.

    Args:
        http: where; its URL ends with ``/v1`` mostly.
        model: the name that the server knows.
        options: sent with every request, such as ``temperature`` or ``max_tokens``; a call's own ones win.
    """

    def __init__(self, http: HttpClient, model: str, **options: Any) -> None:
        self.http, self.model, self.options = http, model, options

    def complete(self, messages: str | Sequence[Message], *, top_logprobs: int = 0, **options: Any) -> Completion:
        """One completion of messages, or of a text as the user's message.

        Args:
            top_logprobs: how many likeliest tokens to list at each place; 0 asks for no log-probabilities.
            options: further fields of the request.

        Raises:
            DataError: the answer is not what the protocol says, or lacks log-probabilities that were asked for.
            UsageError, ResourceError: as :meth:`HttpClient.post`.
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(m) for m in messages]
        payload = {**self.options, **options, "model": self.model, "messages": turns}
        if top_logprobs > 0:
            payload |= {"logprobs": True, "top_logprobs": top_logprobs}
        answer = self.http.post("/chat/completions", payload)
        where = f"{self.http.url}/chat/completions"
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""
            listed = (choice.get("logprobs") or {}).get("content") or []
            tokens = tuple(_token(entry) for entry in listed)
            if not isinstance(text, str):
                raise TypeError(f"the content is {text!r:.60}")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                "the server's answer is no chat completion",
                where=where,
                why=f"{type(error).__name__}: {error}",
                fix="check that the server speaks the OpenAI protocol",
            ) from error
        if top_logprobs > 0 and not tokens:
            raise DataError(
                "the server gives no log-probabilities",
                where=where,
                fix="use a server that does (vLLM, llama.cpp), or ask for texts only",
            )
        return Completion(text, tokens, choice.get("finish_reason"))

    def generator(self, *, top_logprobs: int = 0, **options: Any) -> Callable[[str], Completion]:
        """:meth:`complete` of a prompt with these options, as annotators and revisions take it."""

        def generate(prompt: str) -> Completion:
            return self.complete(prompt, top_logprobs=top_logprobs, **options)

        return generate


def _token(entry: Mapping[str, Any]) -> Token:
    top = {str(other["token"]): float(other["logprob"]) for other in entry.get("top_logprobs") or ()}
    token = Token(str(entry["token"]), float(entry["logprob"]), top)
    if any(math.isnan(value) or value > 1e-3 for value in (token.logprob, *top.values())):
        raise ValueError("a log-probability is NaN or above 0")
    return token


class RewardClient:
    """Scores of a reward server.

    POST ``{"pairs": [{"query": ..., "response": ...}, ...]}`` is answered with ``{"scores": [...]}``, a number a pair.
    Texts travel, no ids: policy and reward model may have different tokenizers.

    Args:
        http: where.
        path: behind its URL.
        batch_size: pairs a request; several requests are under way at the same time.

    Raises:
        UsageError: ``batch_size`` is below 1.
    """

    def __init__(self, http: HttpClient, *, path: str = "/score", batch_size: int = 32) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", fix="it must be 1 or more")
        self.http, self.path, self.batch_size = http, path, batch_size

    def score(self, queries: Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """A score for each pair: float64 (pairs,).

        Raises:
            UsageError: there is not one response for each query, or as :meth:`HttpClient.post`.
            DataError: the server gives another number of scores, or one that is no finite number; or it says that a
                pair cannot be scored.
            ResourceError: as :meth:`HttpClient.post`.
        """
        import numpy as np

        if len(queries) != len(responses):
            raise UsageError(f"there are {len(queries)} queries and {len(responses)} responses")
        starts = range(0, len(queries), self.batch_size)
        with ThreadPoolExecutor(max_workers=self.http.concurrency) as pool:
            parts = list(pool.map(lambda start: self._batch(queries, responses, start), starts))
        return np.array([score for part in parts for score in part], dtype=np.float64)

    def _batch(self, queries: Sequence[str], responses: Sequence[str], start: int) -> list[float]:
        chosen = slice(start, start + self.batch_size)
        pairs = [{"query": q, "response": r} for q, r in zip(queries[chosen], responses[chosen], strict=True)]
        scores = self.http.post(self.path, {"pairs": pairs}).get("scores")
        where = self.http.url + self.path
        if not isinstance(scores, list) or len(scores) != len(pairs):
            raise DataError(
                f"the server does not give {len(pairs)} scores", where=where, why=f"it gives {scores!r:.80}"
            )
        for number, score in enumerate(scores):
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise DataError(
                    "a score is no finite number", where=where, why=f"pair {start + number} has {score!r:.40}"
                )
        return [float(score) for score in scores]
