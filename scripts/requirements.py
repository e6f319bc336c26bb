"""Print the requirements that pyproject.toml lists, for the core and the extras named.

pip can then install them while cargo is still building the package itself.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main(extras: list[str]) -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    names = list(project["dependencies"])
    for extra in extras:
        names += project["optional-dependencies"][extra]
    print("\n".join(names))


if __name__ == "__main__":
    main(sys.argv[1:])
