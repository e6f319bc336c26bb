"""Whole runs of SFTTrainer on a tiny model."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny_model import make_model
from transformers import AutoModelForCausalLM

from alignite.config import SFTConfig
from alignite.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Preempted,
    ResourceError,
    TokenizerError,
    UsageError,
)
from alignite.models.loading import load_model
from alignite.peft import LoraConfig, load_adapter
from alignite.trainers.sft import SFTTrainer
from alignite.training.checkpoint import list_checkpoints
from alignite.training.loop import TrainResult

ROWS = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}."} for n in range(10)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_model(folder, attention_dropout=0.0)
    return folder


def config(run: Path, **options: Any) -> SFTConfig:
    plain = {"max_steps": 4, "per_device_train_batch_size": 5, "learning_rate": 5e-3, "use_peft": True, "lora_r": 4}
    return SFTConfig(output_dir=str(run), **{**plain, **options})


def train(model: Any, run: Path, rows: Any = ROWS, **options: Any) -> TrainResult:
    return SFTTrainer(model, config(run, **options), train_dataset=rows).train()


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_lora_run_leaves_the_folder_that_was_promised(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = SFTTrainer(model, config(run), train_dataset=ROWS, eval_dataset=ROWS[:3])
    before = trainer.evaluate()
    result = trainer.train()
    assert result.step == 4
    assert not result.was_finished
    assert before["eval_loss"] > result.metrics["eval_loss"] > 0
    assert {"eval_mean_token_accuracy", "eval_entropy"} <= before.keys()
    assert losses(run)[-1] < losses(run)[0]
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint-4",
        "config.yaml",
        "data.json",
        "history.jsonl",
        "metrics.jsonl",
        "prepared",
        "prepared-eval",
        "report.html",
        "samples.jsonl",
    }
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert SFTConfig.from_dict(saved).to_dict() == trainer.args.to_dict()
    assert saved["template_date"] is not None

    again = load_model(model)
    load_adapter(again, run)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, trainer.model(ids).logits)  # type: ignore[misc]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(result.metrics["eval_loss"], rel=1e-6)


def test_full_fine_tuning_saves_a_model_that_transformers_loads(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trainer = SFTTrainer(model, config(run, use_peft=False, weight_decay=0.1), train_dataset=ROWS)
    trainer.train()
    assert losses(run)[-1] < losses(run)[0]
    loaded, report = AutoModelForCausalLM.from_pretrained(str(run), output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (run / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, trainer.model.get_parameter(name)), name  # type: ignore[union-attr]
        assert not torch.equal(parameter, load_model(model).get_parameter(name)), f"{name} was trained"


def test_a_loaded_model_and_a_config_object_do_as_well(model: Path, tmp_path: Path) -> None:
    plain = train(model, tmp_path / "folder").metrics["loss"]
    args = config(tmp_path / "loaded", use_peft=False)
    trainer = SFTTrainer(load_model(model), args, ROWS, processing_class=model, peft_config=LoraConfig(r=4))
    assert trainer.train().metrics["loss"] == plain
    with pytest.raises(UsageError, match="processing_class"):
        SFTTrainer(load_model(model), args, ROWS)


def test_files_and_rows_are_the_same_data(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    runs = [tmp_path / name for name in ("rows", "file", "glob")]
    for run, rows in zip(runs, (ROWS, str(file), [str(tmp_path / "*.jsonl")]), strict=True):
        train(model, run, rows)
    assert losses(runs[0]) == losses(runs[1]) == losses(runs[2])


@pytest.mark.parametrize("options", [{"packing": "bfd", "max_length": 200}, {"gradient_checkpointing": True}])
def test_a_full_batch_gives_the_same_losses_by_any_path(model: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    plain = {"per_device_train_batch_size": 10, "max_length": 200}
    train(model, tmp_path / "plain", **plain)
    train(model, tmp_path / "other", **{**plain, **options})
    assert losses(tmp_path / "other") == pytest.approx(losses(tmp_path / "plain"), abs=2e-5)
    if "packing" in options:
        reports = [SFTTrainer(model, config(tmp_path / name)).run_dir / "prepared" for name in ("plain", "other")]
        from alignite.data.prepared import PreparedSet

        assert len(PreparedSet(reports[1])) < len(PreparedSet(reports[0]))


def test_bfloat16_trains_a_float32_adapter(model: Path, tmp_path: Path) -> None:
    trainer = SFTTrainer(model, config(tmp_path / "run", dtype="bfloat16"), train_dataset=ROWS)
    trainer.train()
    dtypes = {p.requires_grad: p.dtype for p in trainer.model.parameters()}  # type: ignore[union-attr]
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]


def test_the_same_command_again_says_that_it_is_finished(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(model, run)
    weights = (run / "adapter_model.safetensors").read_bytes()
    (run / "adapter_model.safetensors").unlink()  # as if it had been killed after its last checkpoint
    again = train(model, run)
    assert again.was_finished
    assert again.metrics["loss"] == first.metrics["loss"]
    assert (run / "adapter_model.safetensors").read_bytes() == weights


def test_more_steps_and_other_logging_are_accepted(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"lr_scheduler_type": "constant"}
    train(model, run, **options)
    longer = train(model, run, max_steps=7, save_steps=2, logging_steps=1, save_total_limit=1, **options)
    assert longer.step == 7
    assert not longer.was_finished
    train(model, tmp_path / "straight", max_steps=7, **options)
    assert losses(run) == losses(tmp_path / "straight")
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-7"]


def test_how_an_update_is_split_may_change_but_not_its_size(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"lr_scheduler_type": "constant"}
    train(model, run, per_device_train_batch_size=4, **options)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert train(model, run, max_steps=6, **split, **options).step == 6
    with pytest.raises(CheckpointError, match="global_batch_size: 4 -> 8"):
        train(model, run, max_steps=8, per_device_train_batch_size=8, **options)


def test_other_edits_are_shown_and_refused(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(model, run)
    kept = (run / "config.yaml").read_text()
    with pytest.raises(CheckpointError) as caught:
        train(model, run, learning_rate=1e-4, lora_r=8)
    assert caught.value.exit_code == 7
    assert "learning_rate: 0.005 -> 0.0001" in str(caught.value)
    assert "lora_r: 4 -> 8" in str(caught.value)
    with pytest.raises(CheckpointError, match="max_steps: 4 -> 3"):
        train(model, run, max_steps=3)
    with pytest.raises(CheckpointError, match="the folder holds a run"):
        train(model, run, resume="never")
    assert (run / "config.yaml").read_text() == kept


def test_other_data_is_refused(model: Path, tmp_path: Path) -> None:
    train(model, tmp_path / "run")
    with pytest.raises(CheckpointError, match="the data has changed"):
        train(model, tmp_path / "run", ROWS[:-1], max_steps=6)


def test_another_base_model_is_refused_and_a_moved_one_taken(model: Path, tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    train(model, run)
    shutil.copytree(model, moved)
    assert train(moved, run, max_steps=6).step == 6
    file = moved / "model.safetensors"
    save_file({name: value * 1.01 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model_fingerprint"):
        train(moved, run, max_steps=8)


def test_a_broken_checkpoint_is_skipped_and_the_run_ends_the_same(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    train(model, run, save_steps=2)
    final = (run / "adapter_model.safetensors").read_bytes()
    optimizer = run / "checkpoint-4" / "optimizer.safetensors"
    data = bytearray(optimizer.read_bytes())
    data[len(data) // 2] ^= 4
    optimizer.write_bytes(data)
    with caplog.at_level(logging.WARNING, "alignite"):
        result = train(model, run, save_steps=2)
    assert "skipping checkpoint-4: optimizer.safetensors" in caplog.text
    assert "going on from checkpoint-2" in caplog.text
    assert (result.step, result.was_finished) == (4, False)
    assert (run / "adapter_model.safetensors").read_bytes() == final

    for folder in list_checkpoints(run):
        (folder / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints is whole"):
        train(model, run, save_steps=2)


def test_a_given_checkpoint_is_taken(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    train(model, run, save_steps=1, save_total_limit=0)
    other = tmp_path / "other"
    assert train(model, other, save_steps=1, resume=str(run / "checkpoint-1")).step == 4
    assert f"going on from {run / 'checkpoint-1'}" in caplog.text
    name = "adapter_model.safetensors"
    assert (other / name).read_bytes() == (run / name).read_bytes()
    with pytest.raises(CheckpointError):
        train(model, tmp_path / "third", resume=str(tmp_path / "nowhere"))


def test_sigterm_ends_a_run_that_can_go_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    trainer = SFTTrainer(model, config(run), train_dataset=ROWS)
    counts = trainer.objective.counts
    monkeypatch.setattr(
        trainer.objective, "counts", lambda batch: os.kill(os.getpid(), signal.SIGTERM) or counts(batch)
    )
    with pytest.raises(Preempted, match="checkpoint-1"):
        trainer.train()
    assert train(model, run).step == 4
    train(model, tmp_path / "straight")
    name = "adapter_model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_what_is_missing_or_wrong_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model"):
        SFTTrainer(None, SFTConfig(output_dir=str(tmp_path)))
    with pytest.raises(UsageError, match="no output_dir"):
        SFTTrainer(model, SFTConfig())
    with pytest.raises(ConfigError, match="lr_scheduler_type"):
        SFTTrainer(model, SFTConfig(output_dir=str(tmp_path), lr_scheduler_type="exponential"))
    with pytest.raises(UsageError, match="no training data"):
        SFTTrainer(model, config(tmp_path / "a")).train()
    with pytest.raises(UsageError, match="no evaluation data"):
        SFTTrainer(model, config(tmp_path / "b")).evaluate()
    with pytest.raises(DataError):
        train(model, tmp_path / "c", [{"prompt": "no completion"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        train(model, tmp_path / "file" / "run")


def test_a_tokenizer_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_model(other)
    data = json.loads((other / "tokenizer.json").read_text())
    data["model"]["vocab"]["extra"] = 5000
    (other / "tokenizer.json").write_text(json.dumps(data))
    args = config(tmp_path / "run")
    with pytest.raises(TokenizerError):
        SFTTrainer(model, args, ROWS, processing_class=other).train()
