"""A run under torchrun is the run of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import make_model


@pytest.mark.slow
def test_two_ranks_prepare_once_train_alike_and_equal_one(tmp_path: Path) -> None:
    code = """
import sys, torch
from pathlib import Path
from alignite.config import SFTConfig
from alignite.trainers.sft import SFTTrainer
folder, batch = Path(sys.argv[1]), int(sys.argv[3])
rows = [{"prompt": f"Say {n}", "completion": "word " * (1 + n % 4)} for n in range(14)]
config = SFTConfig(output_dir=str(folder / sys.argv[2]), max_steps=5, per_device_train_batch_size=batch, use_peft=True)
print(SFTTrainer(folder / "model", config, rows, eval_dataset=rows[:2]).train().step)
"""
    make_model(tmp_path / "model", attention_dropout=0.0)
    tests = str(Path(__file__).parent.parent.parent)
    script = tmp_path / "train.py"
    script.write_text(code)
    plain = {**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script), str(tmp_path)]
    for command in ([str(script), str(tmp_path), "one", "4"], [*torchrun, "two", "2"]):
        done = subprocess.run([sys.executable, *command], env=plain, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert set(done.stdout.split()) <= {"5", "55"}, done.stdout  # two ranks may write into one line
    runs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [line["step"] for line in runs[1]] == [line["step"] for line in runs[0]] == [1, 2, 3, 4, 5, 5]
    for left, right in zip(*runs, strict=True):
        for name in left.keys() - {"time", "tokens_per_second"}:
            assert right[name] == pytest.approx(left[name], rel=1e-4, abs=1e-5), name
