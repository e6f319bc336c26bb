"""``alignite report``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from alignite.cli.options import parse
from alignite.config import ReportConfig
from alignite.errors import UsageError


def run(argv: Sequence[str]) -> int:
    """Write one HTML page about a run, or about several side by side."""
    config, as_json = parse(
        ReportConfig, "alignite report", "Write one HTML page about a run, or about several side by side.", argv
    )
    config.validate()
    if not config.run:
        raise UsageError("no run is given", fix="add --run DIR")
    if config.output is None and len(config.run) > 1:
        raise UsageError(f"{len(config.run)} runs are given and no output", fix="add --output FILE.html")
    output = Path(config.output) if config.output is not None else Path(config.run[0]) / "report.html"

    from alignite.evaluation.report.page import write_report

    write_report(config.run, output)
    if as_json:
        print(json.dumps({"output": str(output), "runs": config.run}))
    else:
        print(f"report of {config.run[0] if len(config.run) == 1 else f'{len(config.run)} runs'} in {output}")
    return 0
