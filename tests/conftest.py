"""Fixtures that several rooms' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import make_model


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder with a random two-layer Llama, a byte-level tokenizer and a ChatML template."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_model(folder, attention_dropout=0.0)
    return folder
