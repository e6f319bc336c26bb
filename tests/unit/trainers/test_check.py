"""A dry run finds what would go wrong, leaves nothing, and its numbers are those of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignite.cli.main import main
from alignite.config import DPOConfig, SFTConfig
from alignite.models import memory
from alignite.trainers.check import Finding, check_run
from alignite.trainers.methods import DPOTrainer
from alignite.trainers.sft import SFTTrainer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Say {n}", "completion": "word " * (1 + n % 7)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(model: Path, data: Path, run: Path, **options: Any) -> SFTConfig:
    plain = {"use_peft": True, "lora_r": 4, "num_train_epochs": 2, "per_device_train_batch_size": 4}
    return SFTConfig(model=str(model), data=[str(data)], output_dir=str(run), **{**plain, **options})


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_run_that_would_go(tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    told: list[Finding] = []
    args = config(tiny_model_folder, data, tmp_path / "runs" / "one", eval_data=[str(data)], eval_steps=5)
    report = check_run(SFTTrainer, args, told.append)
    assert report.errors == []
    assert told == report.findings
    assert [f.name for f in told] == [
        "output_dir",
        "options",
        "resume",
        "data",
        "model",
        "memory",
        "step",
        "disk",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]
    assert report.updates == 20
    assert (report.data["rows"], report.data["used"]) == (40, 40)
    assert report.memory_measured is not None
    assert report.memory_measured > 0
    assert report.seconds_estimate is not None
    assert report.seconds_per_update is not None
    assert report.seconds_estimate > 20 * report.seconds_per_update
    assert report.disk_needed is not None


def test_the_numbers_are_those_of_the_run(tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = config(tiny_model_folder, data, run)
    report = check_run(SFTTrainer, args)
    result = SFTTrainer(args=args).train()
    assert result.step == report.updates
    assert result.metrics["num_tokens"] == 2 * report.data["tokens"]
    kept = json.loads((run / "data.json").read_text())["train"]
    assert kept["fingerprint"] == report.data["fingerprint"]
    trained = sum(tensor.numel() for tensor in load_file(run / "adapter_model.safetensors").values())
    assert f"trains {trained / 1e6:.2f}M" in by_name(report.findings)["model"].text


def test_one_failure_does_not_hide_the_next(tiny_model_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": 1}\n')
    report = check_run(SFTTrainer, config(tmp_path / "nowhere", bad, tmp_path / "run", on_bad_row="error"))
    found = by_name(report.findings)
    assert not found["data"].ok
    assert not found["model"].ok
    assert "step" not in found
    report = check_run(SFTTrainer, config(tiny_model_folder, bad, tmp_path / "run", on_bad_row="error"))
    found = by_name(report.findings)
    assert f"{bad}:2" in found["data"].text
    assert found["model"].ok


def test_memory_that_is_not_there_is_told_before_anything_is_loaded(
    tiny_model_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1 << 16)
    report = check_run(SFTTrainer, config(tiny_model_folder, data, tmp_path / "run"))
    found = by_name(report.findings)
    assert not found["memory"].ok
    assert "micro_batch_tokens" in found["memory"].text
    assert "step" not in found


def test_a_disk_that_is_too_small(
    tiny_model_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignite.trainers import check

    class Usage:
        free = 1000

    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: Usage)
    report = check_run(SFTTrainer, config(tiny_model_folder, data, tmp_path / "run"))
    assert "save_total_limit" in by_name(report.findings)["disk"].text


def test_a_run_that_exists_is_looked_at_and_left_alone(tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    SFTTrainer(args=config(tiny_model_folder, data, run, max_steps=2)).train()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    report = check_run(SFTTrainer, config(tiny_model_folder, data, run, max_steps=6))
    assert "checkpoint-2" in by_name(report.findings)["resume"].text
    assert report.errors == []
    report = check_run(SFTTrainer, config(tiny_model_folder, data, run, max_steps=6, learning_rate=1.0))
    assert "learning_rate" in by_name(report.findings)["resume"].text
    assert not by_name(report.findings)["resume"].ok
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("where", ["/proc", "FILE"])
def test_a_folder_that_cannot_be_written(tiny_model_folder: Path, data: Path, where: str) -> None:
    parent = data if where == "FILE" else Path(where)  # not even root writes there
    report = check_run(SFTTrainer, config(tiny_model_folder, data, parent / "run"))
    found = by_name(report.findings)
    assert not found["output_dir"].ok
    assert str(parent) in found["output_dir"].text
    assert found["data"].ok


def test_the_command(tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", "--model", str(tiny_model_folder), "--data", str(data), "--output_dir", str(tmp_path / "run")]
    assert main([*words, "--use_peft", "--max_steps", "3"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "ready: run `alignite sft` with the same options"
    assert "ok    data       40 of 40 rows" in out
    assert main([*words, "--max_steps", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    assert found["memory"]["estimate"]["total"] == sum(
        value for name, value in found["memory"]["estimate"].items() if name != "total"
    )
    assert main([*words, "--on_bad_row", "error", "--max_length", "2"]) == 3
    out = capsys.readouterr().out
    assert "FAIL  data" in out
    assert "fix:" in out


PAIRS = [{"prompt": f"Say {n}", "chosen": "word " * (1 + n % 3), "rejected": f"no {n}"} for n in range(12)]
STEPS = [
    {"prompt": f"{n} + 1?", "completions": ["I add.", f"{n + 1}."], "labels": [True, n % 2 == 0]} for n in range(9)
]
LABELLED = [{"prompt": f"Say {n}", "completion": f"{n} word", "label": n % 2 == 0} for n in range(12)]
COMMANDS: dict[str, Any] = {
    "dpo": PAIRS,
    "reward": PAIRS,
    "prm": STEPS,
    "preference --objective kto": LABELLED,
    "preference --objective simpo": PAIRS,
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_trains_can_be_tried(
    command: str, whole: bool, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in COMMANDS[command]))
    options = ["--model", str(tiny_model_folder), "--data", str(data), "--output_dir", str(tmp_path / "run")]
    options += ["--max_steps", "2", "--per_device_train_batch_size", "4", *([] if whole else ["--use_peft"])]
    assert main(["check", *command.split(), *options]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"ready: run `alignite {command}` with the same options"
    assert f"{len(COMMANDS[command])} of {len(COMMANDS[command])} rows" in out
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    # What it says is what the run does.
    assert main([*command.split(), *options, "--json"]) == 0
    ran = json.loads(capsys.readouterr().out)
    assert f"{ran['data']['tokens']} tokens" in out
    if not whole:
        trained = sum(tensor.numel() for tensor in load_file(tmp_path / "run" / "adapter_model.safetensors").values())
        assert f"trains {trained / 1e6:.2f}M" in out


def test_a_second_model_in_memory_is_counted(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    weights = {}
    for name, options in {
        "copy": {},
        "numbers": {"precompute_ref_log_probs": True},
        "adapter": {"use_peft": True},
        "model": {"use_peft": True, "ref_model": str(tiny_model_folder)},
    }.items():
        args = DPOConfig(
            model=str(tiny_model_folder), data=[str(data)], output_dir=str(tmp_path / name), max_steps=2, **options
        )
        report = check_run(DPOTrainer, args)
        assert not report.errors
        assert report.memory_estimate is not None
        weights[name] = report.memory_estimate.weights
    assert weights["copy"] == 2 * weights["numbers"]
    assert weights["model"] - weights["adapter"] == weights["numbers"]


def test_a_command_that_does_not_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "merge"]) == 2
    assert "it is one of sft, reward" in capsys.readouterr().err
