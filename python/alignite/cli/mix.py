"""``alignite mix``"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from alignite.cli.options import escaped, parse, stderr
from alignite.config import MixConfig
from alignite.errors import UsageError

if TYPE_CHECKING:
    from alignite.data.mix_file import MixFile
    from alignite.data.mixture import MixedRows, SourceShare


def run(argv: Sequence[str]) -> int:
    """Print the rate of each source of a mixture and how often its rows will be seen; write the drawn rows."""
    config, as_json = parse(
        MixConfig,
        "alignite mix",
        "Show how often a mixture draws from each of its sources, and how many times their rows will be seen. With "
        "--output the drawn rows are written source by source, each as often as it is drawn: files are read from one "
        "end to the other and never held. Training shuffles them.",
        argv,
    )
    config.validate()
    if not config.mixture:
        raise UsageError("no mixture is given", fix="add --mixture FILE")

    from alignite.data.mix_file import read_mix_file
    from alignite.data.mixture import Curriculum

    found = read_mix_file(Path(config.mixture))
    is_staged = isinstance(found.mixed, Curriculum)
    if is_staged and (config.output or config.total is not None):
        what = "total" if config.total is not None else "output"
        raise UsageError(f"{what} is given, and the mixture has stages", fix="stages say their draws; leave it out")
    made: MixedRows | None = None
    if isinstance(found.mixed, Curriculum):
        total, shares = len(found.mixed), found.mixed.describe(found.rows)
    else:
        total = sum(found.rows.values()) if config.total is None else config.total
        shares = found.mixed.describe(total)
        if config.output:
            made = _write(Path(config.output), found, total)
    drawn = sum(share.documents for share in shares)
    if as_json:
        result = {"drawn": drawn, "sources": [asdict(share) for share in shares], "output": config.output}
        print(json.dumps(result | (asdict(made) if made else {})))
    else:
        _show(shares, made)
    if drawn < total:
        stderr(f"{drawn:,} of {total:,} draws: the mixture ends there")
    if made:
        for name, rows in made.lost.items():
            stderr(f"{rows:,} drawn rows lost {name}, which {made.format} has no place for")
        stderr(f"wrote {made.rows:,} rows as {made.format or 'they are'} to {config.output}")
    return 0


def _write(output: Path, found: MixFile, total: int) -> MixedRows:
    from alignite.data.mixture import Mixture

    assert isinstance(found.mixed, Mixture)
    if any(
        file.exists() and output.exists() and file.samefile(output) for files in found.files.values() for file in files
    ):
        raise UsageError(f"output is {str(output)!r}, which is a source", fix="name another file")
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        made = found.mixed.write_rows(found.files, total, str(partial))
        partial.replace(output)
        return made
    finally:
        partial.unlink(missing_ok=True)


def _show(shares: Sequence[SourceShare], made: MixedRows | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("source", box=None, pad_edge=False)
    for name in ("rows", "share", "documents", "epochs"):
        table.add_column(name, justify="right")
    if made:
        table.add_column("format")
        table.add_column("written as")
    for share in shares:
        # Small shares keep their digits: 0.00% is not what a source gets.
        percent = f"{share.share:.2%}" if share.share >= 0.001 or share.share == 0 else f"{share.share:.2e}"
        cells = [escaped(share.name), f"{share.rows:,}", percent, f"{share.documents:,}", f"{share.epochs:.3g}"]
        if made:
            cells += [escaped(made.formats[share.name]), made.format or "it is"]
        table.add_row(*cells)
    Console(highlight=False, markup=False, emoji=False).print(table)
