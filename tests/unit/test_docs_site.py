"""The docs site builds without a warning, holds every option, and loads nothing from elsewhere."""

from __future__ import annotations

import html
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from alignite.config import SFTConfig

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built apart from the checkout, so that nothing of an earlier build helps."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("docs", "recipes"):  # Zensical does not follow links to pages
        shutil.copytree(ROOT / name, folder / name)
    for name in ("python", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    command = [Path(sys.executable).parent / "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # griffe's complaints about docstrings do not count as issues of the site; here they do.
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert all(re.match(r"Build (started|finished)|No issues found", line) for line in said), done.stdout + done.stderr
    return folder / "build" / "site"


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_page_is_there_and_the_options_have_their_help(site: Path) -> None:
    for source in (ROOT / "docs").glob("**/*.md"):
        page = site / source.relative_to(ROOT / "docs").with_suffix(".html")
        assert page.is_file() or source.name == "README.md", source
    options = text_of(site / "api" / "config.html")
    for field in fields(SFTConfig):
        assert field.name in options
        assert field.metadata["help"].split(";")[0] in options, field.name


def test_the_public_names_are_described(site: Path) -> None:
    import alignite

    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    rooms = ("data", "peft", "objectives", "scoring", "feedback")
    wanted = [f"{room}.{name}" for room in rooms for name in getattr(alignite, room).__all__]
    wanted += [f"config.{name}" for name in alignite.config.__all__ if name.endswith("Config")]
    wanted += [f"errors.{name}" for name in vars(alignite.errors) if name[0].isupper()]
    wanted += ["trainers.sft.SFTTrainer", "trainers.sft.SFTTrainer.train", "types.Callback.on_log", "types.RunState"]
    assert len(wanted) > 30
    missing = [name for name in wanted if f'id="alignite.{name}"' not in pages]
    assert not missing
    assert ":class:" not in pages


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("**/*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        loads = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"'\s>]+)", text)
        loads += re.findall(r"<link[^>]*\shref=[\"']?([^\"'\s>]+)", text)
        assert loads
        assert not [url for url in loads if re.match(r"(https?:)?//", url)], page


def test_the_checks_of_the_documents_find_what_is_wrong() -> None:
    check = _check_docs()
    assert check.example("sft --model m --data d --max_steps 3") == ("", 3)
    assert "is refused" in check.example("sft --max_stepz 3")[0]
    assert "it must be a whole number" in check.example("sft --max_steps many")[0]
    assert "is refused" in check.example('generate --prompt "a')[0]
    assert check.yaml_block("max_steps: 3\nuse_peft: true\n") == ("", 2)
    assert "no config" in check.yaml_block("max_step: 3\n")[0]
    assert "no config" in check.yaml_block("a: [\n")[0]
    assert check.yaml_block('--8<-- "recipes/full.yaml"\n')[1] > 5


def _check_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "scripts" / "check_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
