"""The Python on the pages about reward models and process rewards runs, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

METHODS = Path(__file__).parent.parent.parent.parent / "docs" / "methods"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "blocks", "said"),
    [
        ("reward_models.md", 5, "Accuracy(pairs=3"),
        ("process_rewards.md", 3, "FirstError(wrong=1"),
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
