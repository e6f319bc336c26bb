"""Model cards: front matter that the hub and PEFT take, text that no name can break."""

from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from run_folders import event, make_run, start

from alignite.evaluation.report.card import hub_id, write_card

HOSTILE = "a|b`c``d\n---\n# x: {y} </div><script>é나비"


def front(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text()
    assert text.startswith("---\n")
    values: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return values


def test_an_adapters_card(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", history=[start(), start("resume", 30, 50), event("end", 60, 90, outcome="finished")]
    )
    write_card(run, run, kind="adapter", base_model="org/base@v1")
    assert front(run) == {
        "library_name": "peft",
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "pipeline_tag": "text-generation",
        "tags": ["alignite", "sft", "text-generation", "lora", "transformers", "base_model:adapter:org/base"],
    }
    card = ModelCard.load(run / "README.md")
    assert (card.data.library_name, card.data.base_model, card.data.pipeline_tag) == (
        "peft",
        "org/base",
        "text-generation",
    )
    text = (run / "README.md").read_text()
    assert "LoRA, rank 8, alpha 8, trained with" in text
    assert f"alignite generate --model=org/base@v1 --adapter={run} --prompt" in text
    assert "AutoModelForCausalLM.from_pretrained('org/base', revision='v1')" in text
    assert f"PeftModel.from_pretrained(model, '{run}')" in text
    assert "| Training | `rows.jsonl` | 1,250 | 1,241 | 4 | 9 | 198,340 | 81,204 (40.9%) | `9f2c1e5ab7d04c33` |" in text
    assert "| `learning_rate` | `0.0002` | `2e-05` |" in text
    losses = [json.loads(line).get("eval_loss") for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert f"| eval_loss | {[loss for loss in losses if loss][-1]:#.4g} | 60 |" in text
    assert "60 updates, 1 resume, 48,720 tokens read." in text
    assert "- resumed after update 30, 2026-" in text
    assert "- torch: `2.13.0`" in text


def test_a_models_card(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", config={"use_peft": False, "data": ["org/rows:train", "org/rows:more"]})
    base = tmp_path / "my base"
    base.mkdir()
    write_card(run, run, kind="model", base_model=str(base))
    found = front(run)
    assert found["library_name"] == "transformers"
    # The hub refuses paths.
    assert found["base_model"] == "my-base"
    assert found["base_model_relation"] == "finetune"
    assert found["datasets"] == ["org/rows"]
    text = (run / "README.md").read_text()
    assert "put the hub's id there" in text
    assert f"`{base}`" in text
    assert "PeftModel" not in text


def test_hub_ids_of_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "local").mkdir(parents=True)
    assert hub_id("org/base") == "org/base"
    assert hub_id("org/base@rev") == "org/base"
    assert hub_id("/cache/hub/models--org--the-base/snapshots/0123abcd") == "org/the-base"
    assert hub_id("models/local") is None
    assert hub_id("/data/base") is None
    assert hub_id(None) is None


def test_names_break_neither_yaml_nor_markdown(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / HOSTILE.replace("/", "_"), config={"data": [HOSTILE], "model": HOSTILE, "run_name": "`|`"}
    )
    write_card(run, run, kind="adapter", base_model=HOSTILE)
    text = (run / "README.md").read_text()
    found = yaml.safe_load(text[4 : text.index("\n---\n")])
    assert set(found) == {"library_name", "base_model", "base_model_relation", "pipeline_tag", "tags"}
    tokens = MarkdownIt("commonmark").enable("table").parse(text[text.index("\n---\n") + 5 :])
    every = tokens + [inner for token in tokens for inner in token.children or []]
    # Whatever the names hold, the only HTML is the card's own last line, and there is one title.
    assert [token.content.strip()[:19] for token in every if token.type.startswith("html")] == ["<!-- Written by ali"]
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    assert [token.info for token in tokens if token.type == "fence"] == ["sh", "python"]
    assert not [token for token in every if token.type == "link_open"]
    on_one_line = " ".join(HOSTILE.split())
    spans = [token.content for token in every if token.type == "code_inline"]
    assert spans.count(on_one_line) == 4  # the base in the first sentence; data in two tables; the model's option
    shell, python = (token.content for token in tokens if token.type == "fence")
    assert shlex.split(shell)[:2] == ["alignite", "generate"]
    assert f"--model={HOSTILE}" in shlex.split(shell)
    assert HOSTILE in [node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)]


def test_a_card_that_a_person_wrote_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    card = run / "README.md"
    write_card(run, run, kind="adapter", base_model="org/base")
    written = card.read_text()
    card.write_text(written.replace("# run", "# old"))
    write_card(run, run, kind="adapter", base_model="org/base")
    assert card.read_text() == written
    card.write_text("mine")
    write_card(run, run, kind="adapter", base_model="org/base")
    assert card.read_text() == "mine"


def test_a_card_of_weights_without_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    write_card(folder, tmp_path / "nothing", kind="adapter", base_model=None)
    assert front(folder)["library_name"] == "peft"
    text = (folder / "README.md").read_text()
    assert "--adapter=path/to/this/folder" in text
    assert "## Data" not in text


@pytest.mark.parametrize(
    ("method", "words", "tag"),
    [
        ("dpo", "trained with alignite by DPO on", "dpo"),
        ("stable_alignment", "trained with alignite by stable alignment on", "stable_alignment"),
        ("reward", "trained with alignite to score replies on", "reward-model"),
        ("prm", "trained with alignite to score the steps of solutions on", "reward-model"),
    ],
)
def test_a_card_says_what_was_done(method: str, words: str, tag: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", history=[start() | {"method": method}])
    (run / "config.yaml").write_text("beta: 0.3\nlearning_rate: 1.0e-6\nmodel: m\n")
    if tag == "reward-model":
        (run / "adapter_config.json").write_text('{"task_type": "SEQ_CLS"}')
    write_card(run, run, kind="adapter", base_model="org/base")
    text = (run / "README.md").read_text()
    assert words in text
    assert tag in front(run)["tags"]
    # Options and their defaults are those of the method.
    assert ("| `beta` | `0.3` | `0.1` |" in text) == (method == "dpo")
    assert ("| `learning_rate` |" in text) == (method in ("reward", "prm"))
