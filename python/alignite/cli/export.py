"""``alignite export``"""

from __future__ import annotations

import json
from collections.abc import Sequence

from alignite.cli.options import parse
from alignite.config import ExportConfig
from alignite.errors import UsageError


def run(argv: Sequence[str]) -> int:
    """Write a prepared set for other stacks."""
    config, as_json = parse(ExportConfig, "alignite export", "Write a prepared set as Parquet or for Megatron.", argv)
    config.validate()
    for name, example in (("prepared", "--prepared DIR"), ("output", "--output FILE")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")

    from alignite.data.prepared import PreparedSet

    files = PreparedSet(config.prepared).export(config.output, config.to)
    if as_json:
        print(json.dumps({"files": [str(file) for file in files]}))
    else:
        for file in files:
            print(file)
    return 0
