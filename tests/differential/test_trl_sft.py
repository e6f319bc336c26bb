"""The same rows, labels, order and initial adapter give TRL's losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import make_model
from trl_peer import result_of

from alignite.config import SFTConfig
from alignite.models.loading import load_model
from alignite.peft import LoraConfig, apply_adapter, save_adapter
from alignite.trainers.sft import SFTTrainer


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "accumulation"), [("lora", 2), ("full", 1)])
def test_losses_are_trls(tmp_path: Path, kind: str, accumulation: int) -> None:
    make_model(tmp_path / "model", attention_dropout=0.0)
    # Answers of very different lengths: a mean of the micro-batches' means would be off by far more than 1e-4.
    rows = [{"prompt": f"Count to {n}.", "completion": "one two three four " * (1 + n * n % 7)} for n in range(12)]
    shared = {
        "max_steps": 10,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "seed": 3,
    }
    run = tmp_path / "run"
    lora = LoraConfig(r=4, lora_alpha=16) if kind == "lora" else None
    config = SFTConfig(output_dir=str(run), shuffle=False, **shared)
    SFTTrainer(tmp_path / "model", config, rows, peft_config=lora).train()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    adapter = ""
    if lora is not None:
        model = load_model(tmp_path / "model")
        apply_adapter(model, lora, seed=config.seed)
        adapter = str(tmp_path / "adapter")
        save_adapter(model, adapter, config=lora)
    theirs = result_of("trl_sft.py", tmp_path / "model", run / "prepared", adapter, json.dumps(shared))
    losses = [line["loss"] for line in lines]
    assert len(losses) == 10
    assert losses[-1] < losses[0] - 0.01
    assert theirs["losses"] == pytest.approx(losses, abs=1e-4)
    assert theirs["norms"] == pytest.approx([line["grad_norm"] for line in lines], rel=1e-3)
