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
from alignite.config import PreviewConfig, SFTConfig
from alignite.errors import UsageError
from alignite.files import write_file


def run(argv: Sequence[str]) -> int:
    """Show what a model would be trained on: numbers over all rows, and some rows token by token."""
    config, as_json = parse(
        PreviewConfig,
        "alignite preview",
        "Show what a model would be trained on. --config takes a file of `alignite sft` too.",
        argv,
        also=SFTConfig,
    )
    config.validate()
    for name, example in (("model", "--model DIR"), ("data", "--data FILE")):
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")

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


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line with the rows that were read, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading rows") as status:
        yield lambda rows, _: status.update(f"{rows:,} rows read")
