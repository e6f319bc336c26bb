"""Training and answering with a hub's model and data: fetched once, then without the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_hub import Repo, alignite, environment, fake_hub, folder_files


@pytest.mark.slow
def test_train_from_the_hub_then_go_on_generate_and_merge_without_it(tmp_path: Path, tiny_model_folder: Path) -> None:
    rows = [json.dumps({"prompt": f"Say {n}", "completion": "word"}).encode() + b"\n" for n in range(12)]
    words = ("sft", "--model", "org/tiny@v1", "--data", "org/rows", "--eval_data", "org/rows:test", "--use_peft")
    words = (*words, "--output_dir", "run", "--json", "--max_steps")
    with fake_hub() as hub:
        hub.repos["models/org/tiny"] = Repo({"v1": folder_files(tiny_model_folder)})
        hub.repos["datasets/org/rows"] = Repo({"main": {"train.jsonl": b"".join(rows), "test.jsonl": rows[0]}})
        env = environment(tmp_path, hub.url)
        done = alignite(env, *words, "2", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["data"]["used"] == 12
    adapter = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/tiny", "v1")
    assert "model: org/tiny@v1" in (tmp_path / "run" / "config.yaml").read_text()

    done = alignite(env, *words, "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["step"], report["data"]["reused"]) == (3, True)

    answer = ("--prompt", "Say 1", "--max_new_tokens", "4", "--json")
    done = alignite(env, "generate", "--model", "org/tiny@v1", "--adapter", "run", *answer, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    merge = ("merge", "--model", "org/tiny@v1", "--adapter", "run", "--output_dir", "merged")
    merged = alignite(env, *merge, cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    again = alignite(env, "generate", "--model", "merged", *answer, cwd=tmp_path)
    assert json.loads(again.stdout) == json.loads(done.stdout)
