"""``alignite slic``"""

from __future__ import annotations

from collections.abc import Sequence

from alignite.cli.preference import run_objective


def run(argv: Sequence[str]) -> int:
    """Train on pairs and rankings; prints what became of the rows and where the run ended."""
    return run_objective("slic", argv, "alignite slic")
