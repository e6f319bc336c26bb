"""``alignite convert``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from alignite.cli.options import escaped, parse, stderr
from alignite.config import ConvertConfig
from alignite.errors import UsageError


def run(argv: Sequence[str]) -> int:
    """Write data of one format in another, and say what became of every row."""
    config, as_json = parse(ConvertConfig, "alignite convert", "Write data of one format in another.", argv)
    config.validate()
    for name, example in (("data", "--data FILE"), ("to", "--to messages"), ("output", "--output FILE.jsonl")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}")

    from alignite.data.convert import Conversion, convert

    done: Conversion = convert(
        config.data,
        config.to,
        config.output,
        format=config.format,
        columns=config.column_names(),
        form=config.form,
        pairs=config.pairs,
        on_bad_row=config.on_bad_row,
    )
    if as_json:
        print(json.dumps(asdict(done) | {"to": config.to, "output": config.output}))
        return 0
    lines = [(f"{done.rows:,}", "rows in", done.format), (f"{done.written:,}", "rows written", config.to)]
    lines += [(f"{count:,}", "rows lost", name) for name, count in done.lost.items()]
    for reason, rows in done.bad.items():
        lines.append((f"{rows.count:,}", "rows left out", f"{reason} (first: {', '.join(rows.examples[:3])})"))
    for count, what, more in lines:
        print(f"{count:>12}  {what:<14}{escaped(more)}")
    stderr(f"wrote {config.output}")
    return 0
