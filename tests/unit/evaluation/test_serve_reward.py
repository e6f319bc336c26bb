"""A reward model behind HTTP gives what it gives here, and tells what it refuses."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from alignite.data import ChatTokenizer
from alignite.errors import DataError, ResourceError
from alignite.evaluation.serve import RewardServer, serve_reward
from alignite.models.reward_files import load_reward_model
from alignite.scoring.reward import RewardModel


class Failing:
    """Fails in the way that the first reply names."""

    def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        if completions[0] == "data":
            raise DataError("a reply cannot be scored", where="pair 0")
        if completions[0] == "bug":
            raise ZeroDivisionError("oh")
        return np.full(len(prompts), np.nan) if completions[0] == "nan" else np.zeros((len(prompts), 2))


@pytest.fixture
def server() -> Iterator[RewardServer]:
    with serve_reward(Failing(), max_body_bytes=1000, max_pairs=3) as running:
        yield running


def ask(server: RewardServer, body: Any, path: str = "/score", method: str = "POST") -> tuple[int, dict[str, Any]]:
    address = urlsplit(server.url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=20)
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode())
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_scores_over_http_are_those_in_the_process(tiny_model_folder: Path) -> None:
    model = RewardModel(load_reward_model(tiny_model_folder), ChatTokenizer.from_folder(tiny_model_folder))
    prompts: list[Any] = ["q", "q", [{"role": "user", "content": "안녕"}]]
    replies = ["yes", "", "no"]
    pairs = [{"query": query, "response": reply} for query, reply in zip(prompts, replies, strict=True)]
    with serve_reward(model) as running:
        assert running.url.startswith("http://127.0.0.1:")
        status, answer = ask(running, {"pairs": pairs})
        assert status == 200
        assert answer["scores"] == pytest.approx(model.score(prompts, replies).tolist(), abs=1e-12)
        assert ask(running, {"pairs": []}) == (200, {"scores": []})
        assert ask(running, b"", "/health", "GET") == (200, {"status": "ok"})
        status, answer = ask(running, {"pairs": [{"query": [{"role": "user"}], "response": "x"}]})
        assert (status, answer["error"]["type"]) == (400, "DataError")
    with pytest.raises(ConnectionRefusedError):
        ask(running, {"pairs": []})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not JSON"),
        ([], 400, "no list of pairs"),
        ({"pairs": [{"query": "q"}]}, 400, "response of pair 0"),
        ({"pairs": [{"query": 1, "response": "x"}]}, 400, "query of pair 0"),
        ({"pairs": [{"query": "", "response": ""}] * 4}, 400, "4 pairs"),
        ({"pairs": ["x" * 2000]}, 413, "1000 bytes"),
        ({"pairs": [{"query": "q", "response": "data"}]}, 400, "cannot be scored"),
        ({"pairs": [{"query": "q", "response": "bug"}]}, 500, "ZeroDivisionError"),
        ({"pairs": [{"query": "q", "response": "nan"}]}, 500, "not finite"),
        ({"pairs": [{"query": "q", "response": "heads"}]}, 500, "shape (1, 2)"),
    ],
)
def test_what_is_wrong_is_told(server: RewardServer, body: Any, status: int, message: str) -> None:
    found, answer = ask(server, body)
    assert found == status
    assert message in answer["error"]["message"]
    assert ask(server, {"pairs": []}) == (200, {"scores": []})


def test_other_paths_and_broken_requests(server: RewardServer) -> None:
    assert ask(server, {}, "/other")[0] == 404
    assert ask(server, b"", "/score", "GET")[0] == 404
    address = urlsplit(server.url)
    for head in ("Transfer-Encoding: chunked", "Content-Length: -5", "Content-Length: " + "9" * 400):
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20) as raw:
            raw.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            answer = raw.makefile("rb").readline()
        assert answer.split()[1] in (b"411", b"413")


def test_what_is_being_answered_is_answered_before_it_closes() -> None:
    begun, finished = threading.Event(), threading.Event()
    done: list[Any] = []

    class Slow:
        def score(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
            begun.set()
            time.sleep(1.0)  # longer than the server takes to notice that it is told to stop
            finished.set()
            return np.ones(len(prompts))

    running = serve_reward(Slow())
    asker = threading.Thread(target=lambda: done.append(ask(running, {"pairs": [{"query": "q", "response": "r"}]})))
    asker.start()
    begun.wait(10)
    running.close()
    assert finished.is_set()
    asker.join(10)
    assert done == [(200, {"scores": [1.0]})]


def test_a_client_that_hangs_up_is_no_fault_of_the_servers(
    server: RewardServer, capfd: pytest.CaptureFixture[str]
) -> None:
    address = urlsplit(server.url)
    for _ in range(3):
        raw = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        raw.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        raw.close()
    assert ask(server, {"pairs": []}) == (200, {"scores": []})
    server.close()
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken(server: RewardServer) -> None:
    port = int(urlsplit(server.url).port or 0)
    with pytest.raises(ResourceError, match="cannot listen"):
        serve_reward(Failing(), port=port)
