"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read when the hub's library is first imported: no test reaches beyond this machine.
os.environ["HF_HUB_OFFLINE"] = "1"

from tiny_model import make_model


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how the tests looked at pages: a browser is not everywhere, and its absence is no skip."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    found = {str(value) for report in reports for name, value in report.user_properties if name == "report page"}
    for how in sorted(found):
        terminalreporter.write_line(f"the report page was {how}")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder with a random two-layer Llama, a byte-level tokenizer and a ChatML template."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_model(folder, attention_dropout=0.0)
    return folder
