"""``alignite prepare``"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alignite.cli.options import parse, stderr
from alignite.config import PrepareConfig
from alignite.config.preference import TRAINING_CONFIGS
from alignite.errors import DataError, Preempted, UsageError


def run(argv: Sequence[str]) -> int:
    """Prepare data; prints what became of the rows."""
    config, as_json = parse(
        PrepareConfig,
        "alignite prepare",
        "Turn data sets of any format into windows of tokens and labels. --config takes a training command's file too.",
        argv,
        also=tuple(TRAINING_CONFIGS.values()),
    )
    config.validate()
    needed = [("output_dir", "--output_dir DIR")]
    if not config.merge:
        needed = [("model", "--model DIR"), ("data", "--data FILE"), *needed]
    for name, example in needed:
        if not getattr(config, name):
            raise UsageError(f"no {name} is given", fix=f"add {example}, or {name}: to the config file")

    from alignite.data.gate import failures, parse_condition
    from alignite.data.prepare import merge_shards, prepare, prepare_split
    from alignite.data.tokenizer import ChatTokenizer

    for condition in config.fail_if:
        parse_condition(condition)
    started = time.perf_counter()
    goes_on = not config.merge and config.dedup == "none"
    with _stoppable(goes_on), _progress() as progress:
        if config.merge:
            made = {"": merge_shards(config.merge, config.output_dir)}
        else:
            tokenizer = ChatTokenizer.from_folder(config.model)
            shard, append = config.shard_numbers(), config.append
            given = (config.data, tokenizer, config, config.output_dir)
            if config.split_share > 0:
                sets = prepare_split(*given, shard=shard, append=append, progress=progress)
                made = dict(zip(("train", "validation"), sets, strict=True))
            else:
                made = {"": prepare(*given, shard=shard, append=append, progress=progress)}
    seconds = time.perf_counter() - started
    reports = {name: prepared.report for name, prepared in made.items()}
    if as_json:
        print(json.dumps((reports.get("", reports)) | {"seconds": seconds, "output_dir": config.output_dir}))
    for name, prepared in made.items():
        if not as_json:
            _table(reports[name], prepared.work)
            print(f"{len(prepared):,} windows in {prepared.folder}")
    failed = [failure for report in reports.values() for failure in failures(report, config.fail_if)]
    if failed:
        raise DataError(
            "the set is prepared, but its report is not as it must be",
            where=config.output_dir,
            why="; ".join(failed),
            fix="mend the data, or change fail_if",
        )
    return 0


def _table(report: dict[str, Any], work: tuple[int, int, float]) -> None:
    lines = [("rows in", f"{report['rows']:,} ({report['format']})"), ("rows used", f"{report['used']:,}")]
    if report["records"] != report["used"]:
        lines.append(("records", f"{report['records']:,}"))
    for title in ("dropped", "dropped_records", "truncated"):
        for reason, entry in report[title].items():
            lines.append((title.replace("_", " "), f"{entry['count']:,}: {reason} (first: {entry['examples'][0]})"))
    for what, entry in report["noticed"].items():
        lines.append(("noticed", f"{what}: {entry['count']:,} rows (first: {entry['examples'][0]})"))
    if report["lost_labels"]:
        lines.append(("not scored", f"{report['lost_labels']:,} tokens that begin a piece of a row"))
    if report["control_text"]["count"]:
        text = "held control tokens, kept as text"
        lines.append(("control text", f"{report['control_text']['count']:,}: {text}"))
    if report["held_out"]:
        lines.append(("other part", f"{report['held_out']:,} rows"))
    if report["unused_columns"]:
        lines.append(("not read", ", ".join(report["unused_columns"])))
    lines += [
        ("tokens", f"{report['tokens']:,}, {report['scored_tokens']:,} of them scored"),
        ("windows", f"{report['windows']:,}, longest {report['longest']:,}, filled {100 * report['fill']:.2f}%"),
    ]
    lines += [("note", note) for note in report["notes"]]
    if report["reused"]:
        lines.append(("time", "none: the set was there"))
    else:
        rows, tokens, seconds = work
        rate = f", {rows / seconds:,.0f} rows/s, {tokens / seconds:,.0f} tokens/s" if rows else ""
        lines.append(("time", f"{seconds:.1f} s{rate}"))
    for name, text in lines:
        stderr(f"{name:<16}{text}")


@contextmanager
def _stoppable(goes_on: bool) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the work and say what the same command would do."""
    again = "the same command " + ("goes on where its last finished file ends" if goes_on else "begins anew")
    is_terminated = False

    def stop(*_: object) -> None:
        nonlocal is_terminated
        is_terminated = True
        # Not an Exception: where jinja2 renders, that would be the template's fault and cost a row.
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        if is_terminated:
            raise Preempted("stopped by SIGTERM", fix=again) from None
        raise KeyboardInterrupt(f"stopped; {again}") from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line with rows and tokens a second, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    # Rates count from the first call, whose rows may be those of an earlier run, and anew with each pass.
    first = (0, 0, time.perf_counter())
    last = -1
    with Console(stderr=True).status("reading") as status:

        def tell(rows: int, tokens: int) -> None:
            nonlocal first, last
            now = time.perf_counter()
            if last < 0 or rows < last:
                first = (rows, tokens, now)
            last = rows
            seconds = max(now - first[2], 1e-9)
            row_rate, token_rate = (rows - first[0]) / seconds, (tokens - first[1]) / seconds
            status.update(f"{rows:,} rows, {row_rate:,.0f} a second; {tokens:,} tokens, {token_rate:,.0f} a second")

        yield tell
