from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from alignite.errors import CheckpointError, ResourceError
from alignite.training import rng
from alignite.training.lock import run_lock
from alignite.training.metrics import MetricsWriter


def test_a_second_writer_is_refused_with_the_first_ones_name(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from alignite.training.lock import run_lock\n"
        f"with run_lock(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another process") as caught, run_lock(tmp_path):
            pass
        assert f'"pid": {holder.pid}' in str(caught.value)
        assert "host" in str(caught.value)
        assert "since" in str(caught.value)
    finally:
        holder.kill()
        holder.communicate()
    with run_lock(tmp_path):  # a killed process holds nothing
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    with run_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_locked_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError), run_lock(tmp_path / "file"):
        pass


def test_lines_are_json_whatever_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, total=2) as writer:
        writer.log(1, {"loss": 1.25, "grad_norm": float("inf")})
        size = writer.size()
        writer.log(2, {"loss": float("nan")})
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert (first["step"], first["loss"], first["grad_norm"], second["loss"]) == (1, 1.25, None, None)
    assert "step 1/2" in capsys.readouterr().err
    with MetricsWriter(path, size=size) as writer:
        assert writer.size() == size
        writer.log(2, {"loss": 0.5})
    assert [json.loads(line)["loss"] for line in path.read_text().splitlines()] == [1.25, 0.5]
    with MetricsWriter(path) as writer:  # a fresh run starts afresh
        assert writer.size() == 0


def test_ranks_but_the_first_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with MetricsWriter(None) as writer:
        writer.log(1, {"loss": 1.0})
        assert writer.size() == 0
    assert capsys.readouterr().err == ""


def test_a_metrics_file_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"metrics\.jsonl"):
        MetricsWriter(tmp_path / "none" / "metrics.jsonl")


def draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]


def test_random_states_are_taken_up_exactly() -> None:
    rng.seed(5)
    first = draw()
    states = rng.capture()
    assert all(state.dtype == torch.uint8 for state in states.values())
    expected = draw()
    draw()
    rng.restore(states, 0)
    assert draw() == expected
    rng.seed(5)
    assert draw() == first


def test_a_rank_without_a_state_starts_from_the_seed() -> None:
    rng.restore({}, 9)
    first = draw()
    rng.restore({}, 9)
    assert draw() == first
    rng.restore({}, 10)
    assert draw() != first
