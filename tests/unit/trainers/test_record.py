"""What a run leaves besides weights: data.json, samples; and which weights it ends with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignite import Callback, RunState, SFTConfig, SFTTrainer
from alignite.errors import ConfigError, UsageError
from alignite.evaluation.samples import read_samples

ROWS = [{"prompt": f"What is {n} plus {n}?", "completion": f"It is {n + n}."} for n in range(10)]


def trainer_of(model: Path, run: Path, rows: Any = ROWS, **options: Any) -> SFTTrainer:
    extra = {name: options.pop(name) for name in ("eval_dataset", "callbacks") if name in options}
    plain = {"max_steps": 4, "per_device_train_batch_size": 5, "learning_rate": 5e-3, "use_peft": True, "lora_r": 4}
    config = SFTConfig(output_dir=str(run), sample_tokens=8, **{**plain, **options})
    return SFTTrainer(model, config, train_dataset=rows, **extra)


def test_samples_come_from_the_held_out_rows_before_and_after(tiny_model_folder: Path, tmp_path: Path) -> None:
    held_out = [{"prompt": f"Name {n}", "completion": f"<|im_end|>it is {n}"} for n in range(5)]
    trainer_of(
        tiny_model_folder, tmp_path, eval_dataset=held_out, num_samples=2, use_peft=False, learning_rate=3e-2
    ).train()
    found = read_samples(tmp_path)
    assert [(line["kind"], line["step"]) for line in found] == [("before", 0)] * 2 + [("after", 4)] * 2
    for line, number in zip(found, (0, 1, 0, 1), strict=True):
        assert f"Name {number}" in str(line["prompt"])
        assert "<|im_start|>" not in str(line["prompt"])
        assert str(line["reference"]).endswith(f"it is {number}")
    assert [line["answer"] for line in found[:2]] != [line["answer"] for line in found[2:]]


def test_a_line_separator_in_an_answer_loses_no_sample(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = "one\u2028two\x85three\nfour"
    monkeypatch.setattr("alignite.evaluation.samples.generate_text", lambda *_, **__: [answer])
    trainer_of(tiny_model_folder, tmp_path, num_samples=1).train()
    assert [(line["kind"], line["answer"]) for line in read_samples(tmp_path)] == [
        ("before", answer),
        ("after", answer),
    ]


def test_samples_of_given_prompts_and_none_at_all(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainer_of(tiny_model_folder, tmp_path / "a", sample_prompts=["안녕?", "Hi"]).train()
    found = read_samples(tmp_path / "a")
    assert [line["prompt"] for line in found] == ["안녕?", "Hi"] * 2
    assert {line["reference"] for line in found} == {None}
    trainer_of(tiny_model_folder, tmp_path / "b", num_samples=0).train()
    assert not (tmp_path / "b" / "samples.jsonl").exists()


def test_samples_of_raw_text_begin_with_its_beginning(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "", "completion": "once upon a time there was a model"}]
    trainer_of(tiny_model_folder, tmp_path, rows, apply_chat_template=False, num_samples=1).train()
    first = read_samples(tmp_path)[0]
    assert first["prompt"] == "once upon a time"
    assert first["reference"] == "there was a model"


def test_sampling_changes_nothing_in_the_run(tiny_model_folder: Path, tmp_path: Path) -> None:
    for name, count in (("with", 3), ("without", 0)):
        trainer_of(tiny_model_folder, tmp_path / name, num_samples=count, lora_dropout=0.3).train()
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("with", "without"))
    assert all((one[key] == two[key]).all() for key in one)


def test_a_by_product_that_fails_does_not_end_the_run(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr("alignite.trainers.record.write_samples", broken)
    result = trainer_of(tiny_model_folder, tmp_path).train()
    assert result.step == 4
    assert "the samples before training could not be made: no luck" in caplog.text


def test_the_data_of_a_run_are_recorded(tiny_model_folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_model_folder, tmp_path, eval_dataset=ROWS[:3])
    trainer.train()
    found = json.loads((tmp_path / "data.json").read_text())
    assert found["train"]["fingerprint"] == trainer.data_report["fingerprint"]
    assert (found["train"]["used"], found["eval"]["used"]) == (10, 3)


class Values(Callback):
    """Replaces what evaluations give, so that a test decides which is the best."""

    def __init__(self, trainer: SFTTrainer, values: list[float]) -> None:
        self.values = iter(values)

    def on_evaluate(self, run: RunState, metrics: Mapping[str, float]) -> None:
        assert isinstance(metrics, dict)
        metrics["eval_loss"] = next(self.values)


def test_the_best_checkpoints_weights_are_the_result(tiny_model_folder: Path, tmp_path: Path) -> None:
    options = {"eval_dataset": ROWS[:3], "eval_steps": 1, "load_best_model_at_end": True, "save_total_limit": 1}
    trainer = trainer_of(tiny_model_folder, tmp_path, **options)
    trainer.callbacks.append(Values(trainer, [3.0, 1.0, 2.0, 2.0]))
    result = trainer.train()
    assert (result.step, result.best_step) == (4, 2)
    final = load_file(tmp_path / "adapter_model.safetensors")
    best = load_file(tmp_path / "checkpoint-2" / "adapter_model.safetensors")
    last = load_file(tmp_path / "checkpoint-4" / "adapter_model.safetensors")
    assert all((final[key] == best[key]).all() for key in final)
    assert any((final[key] != last[key]).any() for key in final)
    # The same command again ends with the same weights.
    (tmp_path / "adapter_model.safetensors").unlink()
    again = trainer_of(tiny_model_folder, tmp_path, **options)
    assert again.train().was_finished
    final = load_file(tmp_path / "adapter_model.safetensors")
    assert all((final[key] == best[key]).all() for key in final)


def test_a_best_checkpoint_needs_evaluations(tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no evaluation data"):
        trainer_of(tiny_model_folder, tmp_path, load_best_model_at_end=True)


def test_a_callback_of_another_library_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    with pytest.raises(UsageError, match=r"TrainerCallback.*\n.*transformers.*\n.*alignite.Callback"):
        trainer_of(tiny_model_folder, tmp_path, callbacks=[TrainerCallback()])
