"""A hub on this machine that speaks what huggingface_hub and datasets ask of the real one, and its users."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repo:
    """Files by revision; ``refuse`` is a status and a code (X-Error-Code) that every request is answered with."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuse: tuple[int, str] | None = None

    def sha(self, revision: str) -> str | None:
        shas = {
            name: hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest() for name, files in self.files.items()
        }
        return shas.get(revision, revision if revision in shas.values() else None)

    def at(self, sha: str) -> dict[str, bytes]:
        return next(files for name, files in self.files.items() if self.sha(name) == sha)


def folder_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class FakeHub:
    """Serves ``repos``, named ``models/org/name`` or ``datasets/org/name``; ``asked`` logs method and path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def do_POST(self) -> None:
                hub.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fetched(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.split("/", 5)[-1] for path in self.asked if path.startswith("GET ") and "/resolve/" in path}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        path = unquote(url.path)
        self.asked.append(f"{request.command} {path}")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            kind, repo, rest = parts[1], "/".join(parts[2:4]), parts[4:]
        else:
            kind = "datasets" if parts[0] == "datasets" else "models"
            parts = parts[1:] if kind == "datasets" else parts
            repo, rest = "/".join(parts[:2]), parts[2:]
        found = self.repos.get(f"{kind}/{repo}")
        if found is None:
            return self.error(request, 404, "RepoNotFound")
        if found.refuse is not None:
            return self.error(request, *found.refuse)
        what, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        sha = found.sha(revision)
        if sha is None:
            return self.error(request, 404, "RevisionNotFound")
        files = found.at(sha)
        if what == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self.json(request, {"id": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []})
        if what == "tree":
            return self.json(request, [self.entry(name, files[name]) for name in files])
        if what == "paths-info":
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            return self.json(request, [self.entry(name, files[name]) for name in wanted if name in files])
        name = "/".join(rest[2:])
        if what != "resolve" or name not in files:
            return self.error(request, 404, "EntryNotFound")
        etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
        return self.send(request, 200, files[name], {"ETag": etag, "X-Repo-Commit": sha})

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def error(self, request: BaseHTTPRequestHandler, status: int, code: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": f"because {code}"}
        self.send(request, status, json.dumps({"error": code}).encode(), headers)

    def json(self, request: BaseHTTPRequestHandler, value: object) -> None:
        self.send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.close()


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """A process's environment with caches of its own and this endpoint for the hub."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH") if name in os.environ}
    own = {"HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **own, "NO_PROXY": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_ETAG_TIMEOUT": "2", **more}


def python(code: str, env: dict[str, str], *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code; an error of ours becomes its text and its exit code."""
    wrapped = (
        "import sys\nfrom alignite.errors import AligniteError\n"
        f"try:\n    exec({code!r})\n"
        "except AligniteError as error:\n    print(f'{type(error).__name__}: {error}')\n    sys.exit(error.exit_code)\n"
    )
    command = [sys.executable, "-c", wrapped, *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def alignite(env: dict[str, str], *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "alignite", *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=240)
