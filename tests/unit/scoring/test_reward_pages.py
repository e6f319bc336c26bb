"""The Python on the pages about reward models and process rewards runs, block after block."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignite.data.convert import convert_rows

METHODS = Path(__file__).parent.parent.parent.parent / "docs" / "methods"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "blocks", "said"),
    [
        ("reward_models.md", 5, "Accuracy(pairs=3"),
        ("process_rewards.md", 4, "FirstError(wrong=1"),
    ],
)
def test_the_examples(
    page: str,
    blocks: int,
    said: str,
    tiny_model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    text = (METHODS / page).read_text()
    found = BLOCK.findall(text)
    assert len(found) == blocks
    assert not re.search(r"^ {4}(?:from|import) ", text, re.MULTILINE)  # no example that is not run
    names: dict[str, object] = {"__name__": page}
    for block in found:
        exec(block, names)
    assert said in capsys.readouterr().out


def test_rows_with_graded_solutions_become_rankings_and_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in BLOCK.findall((METHODS / "process_rewards.md").read_text()) if "graded = " in block)
    exec(block, {})
    rankings, found = convert_rows(rows_of(Path("rankings.jsonl")), "preference")
    assert (found.format, found.bad) == ("ranked", {})
    assert [(row["chosen"], row["rejected"]) for row in rankings] == [
        ("2*3 is 6\n2+6 is 8", "2+2 is 4\n4*3 is 12"),
        ("2*2 is 4\n7-4 is 3", "7-2 is 5\n5*2 is 10"),
    ]
    steps, found = convert_rows(rows_of(Path("outcomes.jsonl")), "stepwise")
    assert (found.format, found.bad) == ("stepwise", {})
    assert steps[0]["completions"] == ["2*3 is 6", "2+6 is 8"]
    assert [[float(label) > 0 for label in row["labels"]] for row in steps] == [
        [True] * 2, [False] * 2, [False] * 2, [True] * 2
    ]  # fmt: skip


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
