"""The same ids, order, initial adapter and plain SGD give the losses and the metrics of TRL's DPOTrainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import make_model
from trl_peer import result_of

from alignite.config import DPOConfig
from alignite.models.loading import load_model
from alignite.peft import LoraConfig, apply_adapter, save_adapter
from alignite.trainers.methods import DPOTrainer
from alignite.training import optim

STEPS = 20
SHARED: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 0.5, "beta": 0.1}
RUNS: dict[str, dict[str, Any]] = {
    "sigmoid": {"max_steps": STEPS},
    "robust": {"label_smoothing": 0.1},
    "ipo": {},
    "hinge": {},
    "sigmoid_norm": {},
    "exo_pair": {"label_smoothing": 0.1},
    "nca_pair": {},
    "bco_pair": {},
    "sppo_hard": {"learning_rate": 1e-3},
    "apo_zero": {},
    "apo_down": {},
    "discopop": {},
    "sigmoid, forward KL": {"f_divergence_type": "forward_kl"},
    "sigmoid, JS": {"f_divergence_type": "js_divergence"},
    "sigmoid, alpha": {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
}
METRICS = ("chosen", "rejected", "margins", "accuracies")


class _SGD(optim.Optimizer):
    def __init__(self, parameters: dict[str, torch.nn.Parameter], config: Any) -> None:
        super().__init__(parameters, config)
        self._sgd = torch.optim.SGD(parameters.values(), lr=config.learning_rate)

    def step(self, rate: float, norm: torch.Tensor) -> None:
        self._sgd.step()
        self._sgd.zero_grad()


@pytest.mark.slow
def test_losses_and_metrics_are_trls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "model", attention_dropout=0.0)
    rows = [
        {"prompt": f"Count to {n}.", "chosen": "one two " * (1 + n % 3), "rejected": f"no {n} " * (1 + n * n % 4)}
        for n in range(16)
    ]
    model = load_model(tmp_path / "model")
    # A fresh adapter: one that is given already trained is its own reference for TRL, and the base is for us.
    lora = LoraConfig(r=4, lora_alpha=16)
    apply_adapter(model, lora, seed=3)
    save_adapter(model, tmp_path / "adapter", config=lora)

    monkeypatch.setattr("alignite.trainers.base.Optimizer", _SGD)
    ours, options = {}, {}
    for name, run in RUNS.items():
        loss_type = name.partition(",")[0]
        options[name] = SHARED | run | {"loss_type": [loss_type]}
        folder = tmp_path / name.replace(" ", "_")
        config = DPOConfig(
            output_dir=str(folder), shuffle=False, seed=3, lr_scheduler_type="constant", max_grad_norm=0.0,
            num_samples=0, **options[name],
        )  # fmt: skip
        DPOTrainer(tmp_path / "model", None, config, rows, peft_config=lora).train()
        ours[name] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    prepared = tmp_path / "sigmoid" / "prepared"
    theirs = result_of("trl_dpo.py", tmp_path / "model", prepared, tmp_path / "adapter", json.dumps(options))
    for name, found in ours.items():
        expected = theirs[name]
        assert [line["loss"] for line in found] == pytest.approx(expected["losses"], rel=1e-4, abs=1e-6), name
        assert len(found) == options[name]["max_steps"]
        for mine, other in zip(found, expected["metrics"], strict=True):
            for metric in METRICS:
                # TRL rounds what it logs to four significant digits or so.
                assert mine[f"rewards/{metric}"] == pytest.approx(other[f"rewards/{metric}"], rel=2e-3, abs=2e-4), name
            for metric in ("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"):
                assert mine[metric] == pytest.approx(other[metric], rel=2e-3, abs=2e-4), (name, metric)
    # A curve that stays where it was would prove nothing.
    assert ours["sigmoid"][-1]["loss"] < 0.9 * ours["sigmoid"][0]["loss"]
