"""The shape of the house: who may depend on whom, and that the map is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ONLY_USERS = {"pyo3": {"alignite-py"}, "numpy": {"alignite-py"}, "cudarc": {"alignite-cuda"}}


def test_only_the_python_crate_depends_on_pyo3_and_only_the_cuda_crate_on_cudarc() -> None:
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    assert {package["name"] for package in packages} >= {"alignite-data", "alignite-quant", "alignite-py"}
    for package in packages:
        for dependency in package["dependencies"]:
            allowed = ONLY_USERS.get(dependency["name"], {package["name"]})
            assert package["name"] in allowed, f"{package['name']} must not depend on {dependency['name']}"


def test_every_path_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_the_documents_links_and_commands_hold() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "check_docs.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"\d{2,} links and options", done.stdout)


def test_the_map_in_the_readme_names_every_room() -> None:
    text = (ROOT / "README.md").read_text()
    rooms = [path for path in (ROOT / "python" / "alignite").iterdir() if (path / "__init__.py").exists()]
    rooms += [path for path in (ROOT / "rust").iterdir() if (path / "Cargo.toml").exists()]
    assert len(rooms) >= 10
    missing = [path.name for path in rooms if not re.search(rf"^\s+{path.name}/\s", text, flags=re.MULTILINE)]
    assert not missing


def test_the_makefile_explains_the_targets_that_the_readme_promises() -> None:
    output = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in ("setup", "demo", "test", "test-fast", "lint", "stubs", "bench", "docs", "wheel"):
        assert re.search(rf"make {target}\s+\S", output), target


def test_no_file_grows_past_the_house_limit() -> None:
    files = [*ROOT.glob("python/**/*.py"), *ROOT.glob("rust/*/src/**/*.rs")]
    assert files
    long = {str(path.relative_to(ROOT)): n for path in files if (n := len(path.read_text().splitlines())) > 500}
    assert not long
