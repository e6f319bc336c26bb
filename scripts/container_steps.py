"""Run the Containerfile's steps where there is no container engine: in a temporary folder, stage by stage.

COPY sees what .dockerignore lets through, absolute paths lie under the stage's folder, `pip` and what it installs lie
in an environment of their own. FROM and apt-get are left out and named: the compiler and Python are this machine's.

    python scripts/container_steps.py [NAME=VALUE ...]     # values of ARGs; CARGO_TARGET_DIR is taken as it is set
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = re.compile(r"(?<![\w/.:-])/(?=(?:opt|src|wheels|work|tmp)\b)")


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, rest) of each; comments gone, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines.splitlines() if line)]


def context(target: Path) -> None:
    """What an engine would see: .dockerignore leaves all out, takes names in again, and patterns inside them out."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "the first line leaves everything out"
    out = [line.removeprefix("**/") for line in lines[1:] if not line.startswith("!")]
    target.mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(*out))
        elif not any(fnmatch(name, pattern) for pattern in out):
            shutil.copy(ROOT / name, target / name)


def main(arguments: list[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments)
    stages: dict[str, Path] = {}
    environment = dict(os.environ) | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with tempfile.TemporaryDirectory(prefix="container-") as name:
        top = Path(name)
        context(top / "context")
        stage = folder = top
        start: list[str] = []
        for word, rest in instructions((ROOT / "Containerfile").read_text()):
            began = time.perf_counter()
            if word == "FROM":
                image, _, label = rest.partition(" AS ")
                stage = folder = stages[label or "last"] = top / (label or "last")
                folder.mkdir()
                python = top / f"python-{stage.name}"
                venv.create(python, with_pip=True)
                environment = environment | {"PATH": f"{python / 'bin'}:{os.environ['PATH']}"}
                print(f"FROM {image}: this machine's Python and compilers instead")
                continue
            here = OURS.sub(f"{stage}/", rest)
            if word == "ARG":
                key, _, value = rest.partition("=")
                environment[key] = given.get(key, value.strip('"'))
            elif word == "ENV":
                environment |= dict(part.split("=", 1) for part in shlex.split(here))
            elif word == "WORKDIR":
                folder = Path(here)
                folder.mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                *sources, target = here.split()
                source_root = top / "context"
                if sources[0].startswith("--from="):
                    source_root = stages[sources.pop(0).removeprefix("--from=")]
                    sources = [os.path.relpath(source, stage) for source in sources]
                for source in sources:
                    into = folder / target
                    if (source_root / source).is_dir():
                        shutil.copytree(source_root / source, into, dirs_exist_ok=True)
                    else:
                        shutil.copy(source_root / source, into)
            elif word == "RUN" and "apt-get" in rest:
                print(f"left out: {rest}")
                continue
            elif word == "RUN":
                subprocess.run(here, shell=True, cwd=folder, env=environment, check=True)
            elif word == "ENTRYPOINT":
                start = json.loads(rest)
            elif word == "CMD":
                subprocess.run([*start, *json.loads(rest)], cwd=folder, env=environment, check=True)
            else:
                raise ValueError(f"unknown instruction {word}")
            print(f"{time.perf_counter() - began:6.1f} s  {word} {rest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
