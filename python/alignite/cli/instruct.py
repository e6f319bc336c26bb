"""``alignite instruct``"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from alignite.cli.options import escaped, parse
from alignite.config import InstructConfig
from alignite.errors import DataError, UsageError
from alignite.files import cannot_write


def run(argv: Sequence[str]) -> int:
    """Turn a task's labelled rows into instructions, one JSON object a line."""
    config, as_json = parse(
        InstructConfig, "alignite instruct", "Turn labelled rows into instructions by templates.", argv
    )
    config.validate()
    for name, example in (("task", "--task FILE.yaml"), ("output", "--output FILE.jsonl")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")

    from alignite.data.task_file import read_task
    from alignite.data.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.from_folder(config.model) if config.model else None
    task = read_task(config.task, tokenizer=tokenizer, on_bad_row=config.on_bad_row, num_threads=config.num_threads)
    instances = task.instances(config.seed, max_examples=config.max_examples or None)
    output = Path(config.output)
    with _whole(output) as handle:
        for line in instances.lines():
            handle.write(line + "\n")
        report = instances.report or {}
        if not report.get("instances"):
            raise DataError(
                "no instance was made",
                where=config.task,
                why="; ".join(f"{reason} ({count})" for reason, count in report.get("dropped", {}).items()) or None,
                fix="look at the templates and the rows' columns",
            )
    if as_json:
        print(json.dumps({"output": config.output, **report}))
    else:
        print(escaped("\n".join(_told(report, config.output))))
    return 0


def _told(report: dict[str, Any], output: str) -> Iterator[str]:
    yield f"{report['instances']:,} instances of {report['rows']:,} rows in {output}"
    for title, part in (("by style", "styles"), ("by template", "templates"), ("not made", "dropped")):
        if report[part]:
            yield f"{title}:"
        for name, count in sorted(report[part].items(), key=lambda item: (-item[1], item[0])):
            yield f"  {count:>9,}  {name}"


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of ``path`` when everything is written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
