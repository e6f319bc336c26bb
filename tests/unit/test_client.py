"""The HTTP client: completions with log-probabilities, caching, concurrency, rewards."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stub_server import stub_server

from alignite.client import ChatClient, Completion, HttpClient, RewardClient, Token
from alignite.errors import UsageError


def test_a_completion_with_log_probabilities() -> None:
    with stub_server(lambda prompt: {"yes": math.log(0.75), "no": math.log(0.25)}) as server:
        chat = ChatClient(HttpClient(f"{server.url}/v1/", api_key="secret"), "m", temperature=0.0, max_tokens=9)
        told = chat.complete([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], max_tokens=1)
        listed = chat.complete("u", top_logprobs=2)
    assert (told.text, told.tokens, told.finish_reason, str(told)) == ("yes", (), "stop", "yes")
    assert listed == Completion(
        "yes", (Token("yes", math.log(0.75), {"yes": math.log(0.75), "no": math.log(0.25)}),), "stop"
    )
    first, second = server.requests
    assert first == {
        "model": "m",
        "temperature": 0.0,
        "max_tokens": 1,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    }
    assert (second["logprobs"], second["top_logprobs"], second["max_tokens"]) == (True, 2, 9)
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_the_same_request_is_answered_from_the_cache(tmp_path: Path) -> None:
    with stub_server(lambda prompt: prompt.upper()) as server:
        chat = ChatClient(HttpClient(f"{server.url}/v1", api_key="secret", cache=tmp_path), "m")
        assert [chat.complete(text).text for text in ("a", "b", "a")] == ["A", "B", "A"]
        assert len(server.requests) == 2
        other = ChatClient(HttpClient(f"{server.url}/v1", cache=tmp_path), "m")
        assert other.complete("a").text == "A"
        assert other.complete("a", seed=1).text == "A"
        assert len(server.requests) == 3
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) == 3
        assert not any("secret" in path.read_text() for path in files)
        for path in files:
            path.write_text("{")  # damaged entries are asked for again
        assert chat.complete("a").text == "A"
        assert len(server.requests) == 4
        assert sum(isinstance(_read(path), dict) for path in files) == 1


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def test_no_more_requests_at_once_than_allowed() -> None:
    with stub_server() as server:
        server.pause = 0.02
        http = HttpClient(f"{server.url}/v1", concurrency=3)
        with ThreadPoolExecutor(max_workers=10) as pool:
            list(pool.map(ChatClient(http, "m").generator(), map(str, range(20))))
    assert len(server.requests) == 20
    assert 1 < server.most_at_once <= 3


def test_rewards_travel_in_batches_and_keep_their_order() -> None:
    with stub_server(score=lambda query, response: len(query) - len(response) / 2) as server:
        client = RewardClient(HttpClient(server.url), batch_size=4)
        queries, responses = ["q" * n for n in range(10)], ["r" * (n % 3) for n in range(10)]
        scores = client.score(queries, responses)
        assert client.score([], []).shape == (0,)
    assert scores.dtype == np.float64
    assert scores.tolist() == [n - (n % 3) / 2 for n in range(10)]
    assert sorted(len(request["pairs"]) for request in server.requests) == [2, 4, 4]
    with pytest.raises(UsageError, match="1 queries and 2 responses"):
        client.score(["q"], ["a", "b"])


def test_options_are_checked() -> None:
    for url in ("file:///etc/passwd", "127.0.0.1:80", "http://", "http://x:port"):
        with pytest.raises(UsageError, match="no server's URL"):
            HttpClient(url)
    for options in ({"timeout": 0}, {"retries": -1}, {"concurrency": 0}, {"max_bytes": 0}, {"backoff": -1}):
        with pytest.raises(UsageError, match="out of range"):
            HttpClient("http://127.0.0.1:1", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size is 0"):
        RewardClient(HttpClient("http://127.0.0.1:1"), batch_size=0)
    with pytest.raises(UsageError, match="written as JSON"):
        HttpClient("http://127.0.0.1:1").post("/x", {"x": float("nan")})
