"""A hub that is not there, hangs or refuses: the command line says so at once, with the reason and a way out."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fake_hub import Repo, alignite, environment, fake_hub, python

WORDS = ("--output_dir", "run", "--model")
SFT = ("sft", "--data", "rows.jsonl", *WORDS, "org/tiny")
ROWS = ("sft", "--data", "org/rows", *WORDS, "model")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "model").mkdir()
    return tmp_path


@contextmanager
def listening(backlog: int) -> Iterator[str]:
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def silent_host() -> Iterator[str]:
    """A port whose queue is full: connecting takes for ever, as to a host that drops packets."""
    with listening(0) as url:
        port = int(url.rpartition(":")[2])
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield url
        for client in clients:
            client.close()


@pytest.mark.parametrize("words", [SFT, ROWS], ids=["model", "data"])
@pytest.mark.parametrize("fault", ["offline", "refused", "silent"])
def test_without_a_network_it_is_said_in_under_a_second(fault: str, words: tuple[str, ...], home: Path) -> None:
    with silent_host() as silent:
        endpoint = {"offline": silent, "refused": "http://127.0.0.1:9", "silent": silent}[fault]
        env = environment(home, endpoint, **({"HF_HUB_OFFLINE": "1"} if fault == "offline" else {}))
        seconds = []
        for _ in range(3):  # the best of three, for machines that are busy with something else
            start = time.monotonic()
            done = alignite(env, *words, cwd=home)
            seconds.append(time.monotonic() - start)
    assert done.returncode == (4 if words is SFT else 3), done.stderr
    assert {"offline": "HF_HUB_OFFLINE", "refused": "Connection refused", "silent": "does not answer"}[
        fault
    ] in done.stderr
    assert "in the cache, and the hub cannot be reached" in done.stderr
    assert "fix: give a" in done.stderr
    assert min(seconds) < 1.0


def test_a_host_that_takes_connections_and_says_nothing_is_given_up_on(home: Path) -> None:
    with listening(50) as url:
        for words, code in ((SFT, 4), (ROWS, 3)):
            done = alignite(environment(home, url, HF_HUB_ETAG_TIMEOUT="1"), *words, cwd=home)
            assert done.returncode == code, done.stderr
            assert "ReadTimeout" in done.stderr


@pytest.mark.parametrize(
    ("refuse", "said", "fix"),
    [
        (None, "answers 404", "check the name"),
        ((401, "RepoNotFound"), "answers 401", "HF_TOKEN"),
        ((403, "GatedRepo"), "is gated", "ask for access at http://127.0.0.1"),
        ((401, ""), "401", "HF_TOKEN"),
        ((500, ""), "500", "try again later"),
    ],
)
def test_a_hub_that_refuses(refuse: tuple[int, str] | None, said: str, fix: str, home: Path) -> None:
    with fake_hub() as hub:
        if refuse is not None:
            hub.repos = {name: Repo({"main": {}}, refuse=refuse) for name in ("models/org/tiny", "datasets/org/rows")}
        env = environment(home, hub.url)
        for words, code in ((SFT, 4), (ROWS, 3)):
            done = alignite(env, *words, cwd=home)
            assert done.returncode == code, done.stderr
            assert said in done.stderr
            assert fix in done.stderr
            assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported_before_the_answer(home: Path) -> None:
    code = (
        "from alignite.cli.main import main\n"
        "assert main(sys.argv[1:]) == 4\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    done = python(code, environment(home, "http://127.0.0.1:9"), *SFT, cwd=home)
    assert done.stdout == "[]\n", done.stderr


def test_a_repository_of_pickles_is_refused_before_anything_is_fetched(home: Path) -> None:
    with fake_hub() as hub:
        hub.repos["models/org/tiny"] = Repo({"main": {"config.json": b"{}", "pytorch_model.bin": b"x"}})
        done = alignite(environment(home, hub.url), *SFT, cwd=home)
        assert done.returncode == 4
        assert "no .safetensors weights" in done.stderr
        assert hub.fetched() == set()


def test_a_cache_that_cannot_be_written(home: Path) -> None:
    (home / "hf").write_text("a file where the cache would be")
    with fake_hub() as hub:
        weights = {"config.json": b"{}", "model.safetensors": b"x"}
        hub.repos["models/org/tiny"] = Repo({"main": weights})
        done = alignite(environment(home, hub.url), *SFT, cwd=home)
    assert done.returncode == 6, done.stderr
    assert "HF_HOME" in done.stderr
