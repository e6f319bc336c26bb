"""``alignite serve``"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from alignite.cli.options import parse, stderr
from alignite.cli.score_folders import with_run_criteria
from alignite.cli.scorers import Combined, check_models, open_panel
from alignite.config import ServeConfig


def run(argv: Sequence[str]) -> int:
    """Answer POST /score until SIGTERM or Ctrl-C; prints where."""
    config, as_json = parse(ServeConfig, "alignite serve", "Serve reward models over HTTP, on this machine.", argv)
    config = with_run_criteria(config)
    config.validate()
    check_models(config)

    from alignite.evaluation.serve import serve_reward

    panel = open_panel(config)
    model = Combined(panel)
    model.score(["a prompt"], ["a reply"])  # a head or a combination that does not fit is told before anybody asks
    with _until_told() as told, serve_reward(model, config.host, config.port) as server:
        print(json.dumps({"url": server.url}) if as_json else server.url, flush=True)
        stderr("POST /score, GET /health; SIGTERM or Ctrl-C ends it")
        told.get()
    stderr("stopped")
    return 0


@contextmanager
def _until_told() -> Iterator[SimpleQueue[int]]:
    """Gets what SIGTERM or Ctrl-C puts, which is safe in a handler; their handlers are as before afterwards."""
    told: SimpleQueue[int] = SimpleQueue()
    kinds = (signal.SIGTERM, signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    before: list[Any] = [signal.signal(kind, lambda number, _: told.put(number)) for kind in kinds] if main else []
    try:
        yield told
    finally:
        for kind, handler in zip(kinds, before, strict=False):
            signal.signal(kind, handler)
