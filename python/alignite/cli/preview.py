"""``alignite preview``"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from alignite.cli.options import parse, stderr
from alignite.config import PreviewConfig
from alignite.config.preference import TRAINING_CONFIGS
from alignite.errors import UsageError
from alignite.files import write_file


def run(argv: Sequence[str]) -> int:
    """Show what a model would be trained on: numbers over all rows, and some rows token by token."""
    config, as_json = parse(
        PreviewConfig,
        "alignite preview",
        "Show what a model would be trained on. --config takes a file of any command that trains, too.",
        argv,
        also=tuple(TRAINING_CONFIGS.values()),
    )
    config.validate()
    for name, example in (("model", "--model DIR"), ("data", "--data FILE")):
        if not getattr(config, name) and not (name == "data" and config.prepared):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")
    if config.prepared:
        return _windows(config, as_json)

    from alignite.data.survey import preview
    from alignite.data.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.from_folder(config.model)
    with _progress() as progress:
        seen = preview(config.data, tokenizer, config, num_rows=config.num_rows, rows=config.row, progress=progress)
    if config.html:
        from alignite.cli.preview_html import page

        write_file(Path(config.html), page(seen, config))
        stderr(f"wrote {config.html}")
    if as_json:
        print(json.dumps(asdict(seen)))
    else:
        from rich.console import Console

        from alignite.cli.preview_terminal import show

        # A terminal that cannot show a character gets its number instead of an error.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        width, height = shutil.get_terminal_size((80, 24))
        show(seen, config, Console(highlight=False, markup=False, emoji=False, width=width, height=height))
    return 0


def _windows(config: PreviewConfig, as_json: bool) -> int:
    """Show windows as they stand in a prepared folder."""
    if config.html:
        raise UsageError("html is given with prepared", fix="give --json, or leave html out")

    from alignite.cli.preview_windows import lines
    from alignite.data.prepared import PreparedSet
    from alignite.data.tokenizer import ChatTokenizer
    from alignite.data.windows import windows_of

    tokenizer = ChatTokenizer.from_folder(str(config.model))
    shown = windows_of(PreparedSet(str(config.prepared)), tokenizer, config.num_rows, config.row)
    if as_json:
        print(json.dumps([asdict(window) for window in shown]))
        return 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    for line in lines(shown, config.criteria):
        print(line)
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line with the rows that were read, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading rows") as status:
        yield lambda rows, _: status.update(f"{rows:,} rows read")
