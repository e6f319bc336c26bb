"""Servers that stall, drip, close, lie and fail: typed errors in time, or an answer after retries."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_server import StubServer, stub_server

from alignite.client import ChatClient, HttpClient, RewardClient
from alignite.errors import AligniteError, DataError, ResourceError, UsageError


@pytest.fixture
def server() -> Iterator[StubServer]:
    with stub_server() as found:
        yield found


def client(server: StubServer, **options: Any) -> tuple[HttpClient, list[float]]:
    """A client that notes its waits instead of waiting."""
    http = HttpClient(f"{server.url}/v1", **{"retries": 2, "timeout": 20.0, **options})
    waits: list[float] = []
    http._sleep = waits.append
    return http, waits


@pytest.mark.parametrize("fault", [500, 503, 429, 408, "close", "short"])
def test_what_passes_is_tried_again(server: StubServer, fault: int | str) -> None:
    server.faults = [fault, fault]
    http, waits = client(server)
    assert ChatClient(http, "m").complete("x").text == "yes"
    assert len(server.requests) == 3
    assert 0.75 <= waits[0] <= 1.0
    assert 1.5 <= waits[1] <= 2.0


@pytest.mark.parametrize(
    ("fault", "why"), [(500, "answers 500.*on demand"), ("close", "Disconnected|Reset"), ("short", "IncompleteRead")]
)
def test_what_does_not_pass_is_an_error_with_its_reason(server: StubServer, fault: int | str, why: str) -> None:
    server.faults = [fault] * 9
    http, _ = client(server)
    with pytest.raises(ResourceError, match=f"no answer after 3 attempts(.|\n)*({why})"):
        ChatClient(http, "m").complete("x")
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["stall", "drip"])
def test_a_deadline_holds_for_the_whole_answer(server: StubServer, fault: str) -> None:
    server.faults = [fault, fault]
    http, _ = client(server, retries=1, timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(ResourceError, match=r"2 attempts(.|\n)*[Tt]ime"):
        ChatClient(http, "m").complete("x")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("fault", ["garbage", "html", "list"])
def test_garbage_is_named_at_once(server: StubServer, fault: str) -> None:
    server.faults = [fault]
    http, waits = client(server)
    with pytest.raises(DataError, match="no JSON"):
        ChatClient(http, "m").complete("x")
    assert waits == []


def test_an_answer_without_end_is_cut_off(server: StubServer) -> None:
    server.faults = ["huge"]
    http, _ = client(server, max_bytes=100_000)
    with pytest.raises(DataError, match="larger than 100000 bytes"):
        ChatClient(http, "m").complete("x")


@pytest.mark.parametrize(("status", "fix"), [(400, None), (401, "set api_key"), (404, "check the URL")])
def test_refusals_are_not_tried_again(server: StubServer, status: int, fix: str | None) -> None:
    server.faults = [status]
    http, _ = client(server, api_key="secret-key")
    with pytest.raises(UsageError, match="refuses the request") as caught:
        ChatClient(http, "m").complete("x")
    assert len(server.requests) == 1
    assert (fix is None) == (caught.value.fix is None)
    assert fix is None or fix in str(caught.value)
    assert "secret-key" not in str(caught.value)


def test_redirects_are_not_followed(server: StubServer) -> None:
    server.faults = ["redirect"]
    http, _ = client(server)
    with pytest.raises(UsageError, match="answers 302"):
        ChatClient(http, "m").complete("x")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"), [("7", 7, 7), ("3600", 60, 60), ("soon", 0.7, 1), ("nan", 0.7, 1)]
)
def test_a_servers_wait_is_kept_within_a_minute(server: StubServer, header: str, least: float, most: float) -> None:
    server.faults, server.fault_headers = [429], {"Retry-After": header}
    http, waits = client(server)
    ChatClient(http, "m").complete("x")
    assert least <= waits[0] <= most


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    http = HttpClient(f"http://127.0.0.1:{port}", retries=1, backoff=0)
    with pytest.raises(ResourceError, match="refused"):
        http.post("/x", {})


def test_failures_are_not_cached(server: StubServer, tmp_path: Path) -> None:
    server.faults = ["garbage", 400]
    http, _ = client(server, cache=tmp_path)
    for _ in range(2):
        with pytest.raises(AligniteError):
            ChatClient(http, "m").complete("x")
    assert ChatClient(http, "m").complete("x").text == "yes"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": []},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 3}}]},
        {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]},
        {
            "choices": [
                {"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": float("nan")}]}}
            ]
        },
        {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "x", "logprob": 2.0}]}}]},
    ],
)
def test_objects_that_are_no_completions(
    server: StubServer, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "completion", lambda body: answer)
    with pytest.raises(DataError, match="no chat completion"):
        ChatClient(client(server)[0], "m").complete("x", top_logprobs=1)


def test_a_server_without_log_probabilities_is_named(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"choices": [{"message": {"content": None}, "logprobs": None}]}
    monkeypatch.setattr(server, "completion", lambda body: answer)
    chat = ChatClient(client(server)[0], "m")
    assert chat.complete("x").text == ""
    with pytest.raises(DataError, match="gives no log-probabilities"):
        chat.complete("x", top_logprobs=1)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "high", True])
def test_scores_that_are_no_numbers(score: Any) -> None:
    with stub_server(score=lambda query, response: score if response == "bad" else 1.0) as server:
        rewards = RewardClient(HttpClient(server.url), batch_size=2)
        with pytest.raises(DataError, match=r"no finite number(.|\n)*pair 2"):
            rewards.score(["q"] * 3, ["a", "b", "bad"])


@pytest.mark.parametrize("answer", [{"scores": [1.0]}, {"scores": "12"}, {"rewards": [1.0, 2.0]}])
def test_a_wrong_number_of_scores(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    http = HttpClient("http://127.0.0.1:1")
    monkeypatch.setattr(http, "post", lambda path, payload: answer)
    with pytest.raises(DataError, match="does not give 2 scores"):
        RewardClient(http).score(["a", "b"], ["c", "d"])
