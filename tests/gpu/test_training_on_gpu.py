"""What only a GPU can show. Collected everywhere, run where torch sees a CUDA device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite import LoraConfig, SFTConfig, SFTTrainer
from alignite.models.columns import compute_columns
from alignite.models.loading import load_model
from alignite.types import SftBatch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
WANTED = frozenset({"policy.logp", "policy.entropy", "policy.is_top1"})


def batch() -> SftBatch:
    lengths = [40, 7, 129]
    ids = torch.randint(3, 250, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    starts = np.cumsum([0, *lengths[:-1]])
    labels = ids.clone()
    labels[starts] = -100
    segments = np.stack([starts, lengths, np.full(3, -1)], axis=1).astype(np.int64)
    return SftBatch(ids, labels, torch.cat([torch.arange(n) for n in lengths]), segments, 3)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_columns_equal_the_cpus(tiny_model_folder: Path, dtype: str, tolerance: float) -> None:
    """In bfloat16 all segments go through one variable-length kernel."""
    models: dict[str, Any] = {d: load_model(tiny_model_folder, dtype, d) for d in ("cpu", "cuda")}
    found = {}
    for device, model in models.items():
        model.requires_grad_(True)
        column = compute_columns({"policy": model}, batch().to(device), WANTED)["policy.logp"]
        column.sum().backward()
        gradient = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None])
        found[device] = (column.detach().cpu(), gradient)
    torch.testing.assert_close(found["cuda"][0], found["cpu"][0], rtol=tolerance, atol=tolerance)
    assert (found["cuda"][1] - found["cpu"][1]).norm() <= tolerance * found["cpu"][1].norm()


def test_a_run_on_the_gpu_learns_what_a_run_on_the_cpu_does(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}", "completion": "word " * (1 + n % 4)} for n in range(16)]
    losses = {}
    for device in ("cpu", "cuda"):
        config = SFTConfig(output_dir=str(tmp_path / device), max_steps=6, learning_rate=1e-2, device=device)
        SFTTrainer(tiny_model_folder, config, rows, peft_config=LoraConfig(r=4)).train()
        lines = (tmp_path / device / "metrics.jsonl").read_text().splitlines()
        losses[device] = [json.loads(line)["loss"] for line in lines]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
    assert losses["cuda"][-1] < losses["cuda"][0]
