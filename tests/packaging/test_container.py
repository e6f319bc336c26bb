"""The Containerfile, as far as it can be read without an engine: scripts/container_steps.py runs its steps."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent


def steps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("container_steps", ROOT / "scripts" / "container_steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_engine_sees_what_is_copied_and_nothing_else(tmp_path: Path) -> None:
    module = steps()
    module.context(tmp_path / "context")
    there = {path.name for path in (tmp_path / "context").iterdir()}
    copied: set[str] = set()
    for word, rest in module.instructions((ROOT / "Containerfile").read_text()):
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
    assert there == copied >= {"Cargo.lock", "pyproject.toml", "rust", "python"}
    files = [path for path in (tmp_path / "context").glob("**/*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if path.suffix in (".so", ".pyc") or path.name.startswith(".")]


def test_the_page_names_the_arguments_that_there_are() -> None:
    text = (ROOT / "Containerfile").read_text()
    arguments = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert arguments == set(re.findall(r"--build-arg (\w+)=", (ROOT / "docs" / "container.md").read_text()))
    for name in arguments:
        assert f"${{{name}}}" in text


def test_continued_lines_and_comments_are_read_as_an_engine_reads_them() -> None:
    text = "# a\nFROM x AS y\nRUN a \\\n    && b\n  # c\nCMD []\n"
    assert steps().instructions(text) == [("FROM", "x AS y"), ("RUN", "a      && b"), ("CMD", "[]")]
