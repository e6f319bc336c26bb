"""``alignite import-gguf``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from alignite.cli.options import parse
from alignite.config import ImportGgufConfig
from alignite.errors import UsageError


def run(argv: Sequence[str]) -> int:
    """Write a transformers folder with the file's weights, tokenizer and chat template."""
    config, as_json = parse(
        ImportGgufConfig, "alignite import-gguf", "Turn a GGUF file into a folder that transformers loads.", argv
    )
    config.validate()
    for name, what in (("gguf", "FILE"), ("output_dir", "DIR")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add --{name} {what}")

    from alignite.models.gguf import import_gguf

    report = import_gguf(config.gguf, config.output_dir, config.dtype)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        types = ", ".join(f"{count} {kind}" for kind, count in report.types.items())
        print(
            f"{report.tensors} tensors ({types}), {report.parameters / 1e6:.1f}M parameters in {report.seconds:.1f} s"
        )
        print(report.output_dir)
    return 0
