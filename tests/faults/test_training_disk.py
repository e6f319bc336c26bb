"""A disk that fills up while a run trains: typed error, no broken checkpoint, and the run goes on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tiny_model import make_model
from alignite.config import SFTConfig
from alignite.errors import ResourceError
from alignite.trainers.sft import SFTTrainer
from alignite.training.checkpoint import list_checkpoints, read_checkpoint

folder, kind = Path(sys.argv[1]), sys.argv[2]
make_model(folder / "model")
rows = [{"prompt": f"Say {n}", "completion": f"{n}"} for n in range(8)]

def run(name):
    options = {"max_steps": 4, "save_steps": 2, "use_peft": kind == "lora", "lora_dropout": 0.1}
    return SFTTrainer(folder / "model", SFTConfig(output_dir=str(folder / name), **options), rows)

run("straight").train()
trainer = run("full")
save = trainer._save_weights
def fill_up(target):
    if "checkpoint-4" in str(target):  # the first checkpoint fits, the second does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    save(target)
trainer._save_weights = fill_up
try:
    trainer.train()
except ResourceError as error:
    assert error.exit_code == 6 and "checkpoint-4" in str(error), error
    assert "space" in str(error) or "large" in str(error), error
else:
    raise SystemExit("no error")
# The final weights do not fit either, outside any checkpoint.
trainer._save_weights = save
try:
    trainer.save_model(folder / "final")
except ResourceError as error:
    assert "final" in str(error), error
else:
    raise SystemExit("no error")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert [read_checkpoint(path).step for path in list_checkpoints(folder / "full")] == [2]
assert run("full").train().step == 4
name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
for file in (name, "checkpoint-4/optimizer.safetensors"):
    assert (folder / "full" / file).read_bytes() == (folder / "straight" / file).read_bytes(), file
print("DONE")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_full_disk(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), kind],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "DONE" in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]
