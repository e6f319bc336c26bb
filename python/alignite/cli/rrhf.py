"""``alignite rrhf``"""

from __future__ import annotations

from collections.abc import Sequence

from alignite.cli.preference import run_objective


def run(argv: Sequence[str]) -> int:
    """Train on rankings; prints what became of the rows and where the run ended."""
    return run_objective("rrhf", argv, "alignite rrhf")
