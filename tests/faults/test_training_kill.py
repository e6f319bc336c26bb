"""A run that is killed at any moment ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), kind],
        env={
            **os.environ,
            "PYTHONPATH": str(script.parent.parent),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    found = json.loads(line.removeprefix("RESULT "))
    assert found["statuses"].count(-9) >= 4, "the run was really killed"
    assert any(0 < step < 24 for step in found["steps"]), "and really resumed from a checkpoint"
    assert found["straight"]
    assert len(found["straight"]) == 4
    assert found["killed"] == found["straight"]
    assert found["same_metrics"]
    assert found["finished_again"] == 0
