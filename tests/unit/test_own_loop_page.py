"""docs/own_loop.md, block after block, on a tiny model."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "own_loop.md").read_text()


def test_the_blocks_run_in_their_order(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2").symlink_to(tiny_model_folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == PAGE.count("```") // 2 == 5
    names: dict[str, object] = {"__name__": "own_loop"}
    printed = []
    for block in blocks:
        before = dict(names)
        exec(block, names)
        assert before != names
        printed.append(capsys.readouterr().out)
    losses = [float(number) for number in re.findall(r"loss (\S+)", printed[0])]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < losses[0]
    assert float(printed[4]) == pytest.approx(math.log(2), abs=1e-6)
