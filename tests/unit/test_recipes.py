"""Every recipe trains as it stands, on a tiny model and rows of the format that it is for."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from alignite.cli.main import main
from alignite.config import TrainingConfig
from alignite.config.preference import TRAINING_CONFIGS

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
# What a test may change: where things are, and how many there are of them.
STEPS = 4
SMALLER = {
    "max_steps": STEPS,
    "max_length": 96,
    "eval_steps": 1,
    "save_steps": 2,
    "warmup_steps": 1,
    "lora_r": 4,
    "sample_tokens": 4,
    "per_device_train_batch_size": 2,
}


def command(path: Path) -> list[str]:
    """The command that runs a recipe: `sft`, unless its head says otherwise."""
    found = re.search(r"^# Run: +alignite (.+) --config recipes/(.+)$", path.read_text(), re.MULTILINE)
    assert found is None or found[2] == path.name
    return found[1].split() if found else ["sft"]


def config_of(path: Path) -> type[TrainingConfig]:
    """The class that has the recipe's options."""
    name = command(path)[-1]
    return TRAINING_CONFIGS[name]


def rows(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows as the recipe's files hold them, told by the names of the files."""
    name = Path(settings["data"][0]).name
    pairs = [(f"Say {n}.", f"The number is {n}. " * (1 + n % 3)) for n in range(16)]
    if name.startswith("gsm8k"):
        return [{"question": question, "answer": answer} for question, answer in pairs]
    if name.startswith("texts"):
        return [{"prompt": "", "completion": answer * 2} for _, answer in pairs]
    if name.startswith("alpaca"):
        good = [{"instruction": question, "input": "", "output": answer} for question, answer in pairs]
        return [*good, {"instruction": "a row that does not fit", "output": None}]
    if name.startswith("pairs"):
        return [{"prompt": question, "chosen": answer, "rejected": "No."} for question, answer in pairs]
    if name.startswith("labelled"):
        return [{"prompt": q, "completion": answer, "label": n % 2 == 0} for n, (q, answer) in enumerate(pairs)]
    if name.startswith("ranked"):
        return [{"prompt": q, "completions": [a, "No.", "Three."], "scores": [2, 0, 1]} for q, a in pairs]
    if name.startswith("steps"):
        return [{"prompt": q, "completions": ["I think.", a], "labels": [1, n % 2]} for n, (q, a) in enumerate(pairs)]
    assert name.startswith("chat")
    turns = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs]
    return [{"messages": two} for two in turns]


def options(path: Path, folder: Path, model: Path) -> list[str]:
    """What the command line puts over a recipe."""
    settings = yaml.safe_load(path.read_text())
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(settings)))
    words = ["--model", str(model), "--data", str(file), "--output_dir", str(folder / "run")]
    if settings.get("eval_data"):
        words += ["--eval_data", str(file)]
    smaller = {name: value for name, value in SMALLER.items() if name in settings or name.startswith(("max", "sample"))}
    return words + [word for name, value in smaller.items() for word in (f"--{name}", str(value))]


def test_there_are_ten_and_the_documents_list_them() -> None:
    assert len(RECIPES) >= 10
    page = (ROOT / "docs" / "recipes.md").read_text()
    for path in RECIPES:
        assert f'--8<-- "recipes/{path.name}"' in page, path.name
        assert f"[`recipes/{path.name}`](#{path.stem})" in page, path.name
    assert set(re.findall(r"recipes/(\w+\.yaml)", page)) == {path.name for path in RECIPES}
    assert "recipes/" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_keys_are_options_and_its_head_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    settings = yaml.safe_load(text)
    assert set(settings) <= {field.name for field in fields(config_of(path))}
    config_of(path).from_dict(settings).validate()
    assert settings["output_dir"] == f"runs/{path.stem}"
    heads = [line.split(":")[0] for line in text.splitlines() if re.match(r"# \w+: ", line)]
    assert heads == ["# Run"] * (command(path) != ["sft"]) + ["# For", "# Change", "# Expect"]


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains(path: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command(path), "--config", str(path), *options(path, tmp_path, tiny_model_folder), "--json"]
    assert main(words) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == STEPS
    if command(path) == ["sft"]:  # other losses have another scale
        assert result["metrics"]["loss"] > 0
    assert abs(result["metrics"]["loss"]) < (20 if command(path) == ["sft"] else 500)
    run = tmp_path / "run"
    settings = yaml.safe_load(path.read_text())
    if settings.get("use_peft"):
        weights = load_file(run / "adapter_model.safetensors")
        assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    else:
        before = load_file(tiny_model_folder / "model.safetensors")
        after = load_file(run / "model.safetensors")
        assert any((after[name] != value).any() for name, value in before.items() if name in after)
    if path.stem == "alpaca":
        assert result["data"]["used"] == 16
        assert sum(entry["count"] for entry in result["data"]["dropped"].values()) == 1
    if path.stem == "packed":
        assert result["data"]["windows"] < result["data"]["used"]


@pytest.mark.slow
def test_the_command_in_two_ranks_runs(tiny_model_folder: Path, tmp_path: Path) -> None:
    path = ROOT / "recipes" / "two_ranks.yaml"
    (line,) = [line[1:].strip() for line in path.read_text().splitlines() if " torchrun " in line]
    words = shlex.split(line)
    assert words[0] == "torchrun"
    line = [sys.executable, "-m", "torch.distributed.run", *words[1:], *options(path, tmp_path, tiny_model_folder)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    history = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(history[0])["machine"]["ranks"] == 2
    assert json.loads(history[-1])["outcome"] == "finished"
