"""The page's example runs and says what the page says; the room needs no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "methods" / "feedback.md"


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", PAGE.read_text(), re.MULTILINE)
    examples = [block for block in blocks if "import" in block]
    names: dict[str, object] = {}
    for example in examples:
        exec(re.sub(r"^ {4}", "", example, flags=re.MULTILINE), names)
    printed = capsys.readouterr().out
    assert "('m1', 'm2')" in printed
    assert "{0: 'pass', 1: 'fail'}" in printed
    assert printed.splitlines()[-2] == "0.75 0.0"
    assert float(printed.splitlines()[-1]) == pytest.approx(0.778, abs=5e-4)
    assert names["left_out"] == {}


def test_neither_torch_nor_peers_are_imported() -> None:
    code = (
        "import sys, alignite.feedback, alignite.client\n"
        "print([m for m in ('torch', 'transformers', 'scipy', 'pandas', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
