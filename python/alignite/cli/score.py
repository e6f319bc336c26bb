"""``alignite score``"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from alignite.cli.options import check_data, escaped, parse, stderr
from alignite.cli.score_folders import with_run_criteria
from alignite.cli.scorers import check_models, open_panel
from alignite.config import ScoreConfig
from alignite.errors import AligniteError, DataError, ResourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def run(argv: Sequence[str]) -> int:
    """Write rows again with the scores of their replies, and say what became of every row."""
    config, as_json = parse(ScoreConfig, "alignite score", "Score the replies of rows by reward models.", argv)
    config = with_run_criteria(config)
    config.validate()
    for name, example in (("data", "--data FILE"), ("output", "--output FILE.jsonl")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}")
    if as_json and config.output == "-":
        raise UsageError("--json and --output - both write to standard output", fix="name a file")
    check_models(config)
    check_data(config.data)
    if config.output != "-" and Path(config.output).exists():
        raise ResourceError("the output file is there already", where=config.output, fix="name a new file")

    import numpy as np

    from alignite.data.files import find_files
    from alignite.evaluation.candidates import Skipped, read_rows
    from alignite.evaluation.scored_rows import score_stream

    panel = open_panel(config)
    skipped = Skipped()
    counted = skipped if config.on_bad_row == "skip" else None

    def combine(scores: NDArray[np.float64], row: Mapping[str, Any]) -> NDArray[np.float64]:
        if config.combine == "lexicographic" and len(scores) < 2:
            raise DataError("lexicographic orders the replies of a row, and the row has one", fix="give several")
        about = panel.criterion_of(row) if panel.chosen_head is None else None
        if about is not None:
            return panel.combine_row(scores, about)
        is_safety = panel.safety_of(row, config.safety_column) if config.safety_column is not None else False
        return panel.combine(scores, np.full(len(scores), is_safety) if config.combine == "threshold" else None)

    rows = read_rows(find_files(config.data), config.column_names(), counted)
    total, squares, replies, written = 0.0, 0.0, 0, 0
    with _written(config.output) as file:
        for row, scores in score_stream(panel, combine, lambda: panel.columns, rows, counted):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
            replies += len(scores)
            total += float(scores.sum())
            squares += float(scores @ scores)
        if not written:
            raise DataError("no row could be scored", why=str(skipped) or "there are none", fix="mend the rows")
    mean = total / replies
    report: dict[str, Any] = {
        "written": written,
        "replies": replies,
        "mean": mean,
        "std": max(squares / replies - mean * mean, 0.0) ** 0.5,
        "models": panel.columns,
        "bad": {reason: asdict(count) for reason, count in skipped.counts().items()},
        "output": config.output,
    }
    if as_json:
        print(json.dumps(report))
        return 0
    out = sys.stderr if config.output == "-" else sys.stdout
    lines = [
        f"{written:>12,}  rows written  {replies:,} replies",
        f"{mean:>12.4g}  mean score    standard deviation {report['std']:.4g}",
    ]
    for reason, count in skipped.counts().items():
        lines.append(f"{count.count:>12,}  rows left out {reason} (first: {', '.join(count.examples)})")
    print(escaped("\n".join(lines)), file=out)
    if config.output != "-":
        stderr(f"wrote {config.output}")
    return 0


@contextmanager
def _written(output: str) -> Iterator[IO[str]]:
    """A file that is there whole or not at all, or standard output."""
    if output == "-":
        yield sys.stdout
        return
    target = Path(output)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            yield file
        os.replace(partial, target)
    except AligniteError:
        raise  # some of them are OSErrors too
    except OSError as error:
        raise ResourceError(
            "cannot write the rows", where=output, why=error.strerror, fix="check the path and the free space"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
