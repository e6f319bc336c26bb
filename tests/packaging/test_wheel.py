"""The wheel as strangers get it: what it says and holds, and that it works without a checkout and without cargo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SUFFIXES = (".py", ".pyi", ".so", ".jsonl", ".css", ".js")
# What alignite.data and the command line need; torch and transformers are not among them.
SMALL = ("numpy", "jinja2", "PyYAML", "rich")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what cargo has built before: one profile serves the wheel and the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    maturin = Path(sys.executable).parent / "maturin"
    command = [maturin, "build", "--release", "--quiet", "--out", folder]
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and the small packages only."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet"]
    for what in (["--no-deps", wheel], SMALL):
        done = subprocess.run([*pip, "--disable-pip-version-check", *what], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def run(clean: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the clean environment, with nothing of this one: no cargo, no checkout."""
    environment = {
        "PATH": f"{clean / 'bin'}:/usr/bin:/bin",
        "HOME": str(cwd),
        "HF_HUB_OFFLINE": "1",
        "LC_ALL": "C.UTF-8",
    }
    assert shutil.which("cargo", path=environment["PATH"]) is None
    return subprocess.run(
        [str(clean / "bin" / command[0]), *command[1:]], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_its_tag_is_one_for_all_pythons_and_many_linuxes(wheel: Path) -> None:
    assert re.fullmatch(r"alignite-[\d.]+-cp311-abi3-manylinux_\d+_\d+_\w+\.whl", wheel.name), wheel.name


def test_it_holds_the_package_and_nothing_else(names: list[str]) -> None:
    wanted = {"py.typed", "_core.pyi", "_core.abi3.so", "__init__.py", "cli/main.py", "demo/data/identity.jsonl"}
    assert {f"alignite/{name}" for name in wanted} <= set(names)
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    there = {str(path.relative_to(ROOT / "python")) for path in (ROOT / "python").glob("alignite/**/*.py")}
    assert there <= set(names)
    for name in names:
        room = name.partition("/")[0]
        assert room == "alignite" or re.fullmatch(r"alignite-[\d.]+\.dist-info", room), name
        assert not re.search(r"(^|/)(tests?|__pycache__)/|(^|/)\.|(^|/)test_", name), name
        if room == "alignite":
            assert name == "alignite/py.typed" or Path(name).suffix in SUFFIXES, name
            assert (ROOT / "python" / name).is_file(), name


def test_it_holds_no_secret(wheel: Path) -> None:
    key = rb"-----BEGIN [A-Z ]*PRIVATE KEY|\b(hf|ghp|gho|pypi)[_-][A-Za-z0-9]{30}|\bAKIA[A-Z0-9]{16}\b"
    secret = re.compile(key)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            assert not secret.search(archive.read(name)), name


def test_its_metadata_are_those_of_the_project(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (inner,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata: Message = Parser().parsestr(archive.read(inner).decode())
        points = archive.read(inner.replace("METADATA", "entry_points.txt")).decode()
    import alignite

    assert metadata["Name"] == "alignite"
    assert metadata["Version"] == alignite.__version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    required = [plain(line) for line in metadata.get_all("Requires-Dist")]
    wanted = [plain(line) for line in PROJECT["dependencies"]]
    for extra, lines in PROJECT["optional-dependencies"].items():
        wanted += [plain(f"{line}; extra == '{extra}'") for line in lines]
    assert sorted(required) == sorted(wanted)
    assert "alignite=alignite.cli.main:main" in points.replace(" ", "")


def plain(requirement: str) -> str:
    """A requirement without what may be written one way or the other."""
    name, _, marker = requirement.replace(" ", "").replace('"', "'").partition(";")
    match = re.fullmatch(r"([\w.-]+)(.*)", name)
    assert match is not None
    return f"{match[1].lower().replace('_', '-')}{','.join(sorted(match[2].split(',')))};{marker}"


def test_it_prepares_data_where_there_is_no_torch(clean: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    code = f"""
import importlib.util, json, alignite
from alignite.config import SFTConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare_sft
assert importlib.util.find_spec("torch") is None and importlib.util.find_spec("transformers") is None
rows = [{{"prompt": f"Say {{n}}.", "completion": f"{{n}}."}} for n in range(9)]
tokenizer = ChatTokenizer.from_folder({str(tiny_model_folder)!r})
prepared = prepare_sft(rows, tokenizer, SFTConfig(packing="bfd"), "prepared")
ids, labels, positions, segments = PreparedSet("prepared").arrays([0])
print(json.dumps([alignite.__file__, prepared.report["used"], len(ids), int((labels != -100).sum()), len(segments)]))
"""
    done = run(clean, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    file, used, tokens, scored, segments = json.loads(done.stdout)
    assert Path(file).is_relative_to(clean)
    assert (used, segments) == (9, 9)
    assert 0 < scored < tokens

    done = run(clean, tmp_path, "alignite", "--help")
    assert done.returncode == 0
    assert "alignite COMMAND" in done.stdout
    done = run(clean, tmp_path, "alignite", "doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 70  # the core works; torch is missing and the doctor says so
    assert found["rust_core"] == "works"
    assert {"what": "torch is not installed", "fix": "pip install torch"} in found["problems"]


def test_it_trains_with_torch(
    clean: Path, tiny_model_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Say 1.", "completion": "1."}\n' * 8)
    site = next((clean / "lib").glob("python*")) / "site-packages"
    path = site / "elsewhere.pth"  # comes after the clean environment's own packages
    path.write_text(sysconfig.get_path("purelib") + "\n")
    request.addfinalizer(path.unlink)
    where = run(clean, tmp_path, "python", "-c", "import alignite.native.data, torch; print(alignite.__file__)")
    assert where.returncode == 0, where.stderr
    assert Path(where.stdout.strip()).is_relative_to(clean)
    words = ["--model", str(tiny_model_folder), "--data", "rows.jsonl", "--output_dir", "run", "--max_steps", "2"]
    done = run(clean, tmp_path, "alignite", "sft", *words, "--use_peft", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    assert (tmp_path / "run" / "adapter_model.safetensors").is_file()
    assert run(clean, tmp_path, "alignite", "doctor").returncode == 0
