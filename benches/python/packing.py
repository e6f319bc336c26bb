"""Packing: alignite's and TRL's packer on the same lengths, and draws of mixtures. Windows are asserted equal first.

TRL's packer moves the tokens of the rows as well. It is given one byte a token, so that this weighs little.

    python benches/python/packing.py
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from packing_twin import CAP, MU, SIGMA, lognormal_lengths

from alignite.data import Mixture, pack

WINDOW = 1000  # TRL packs each batch of datasets.map by itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows for both packers")
    parser.add_argument("--many", type=int, default=10_000_000, help="rows for ours alone")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from trl.data_utils import _pack_bfd

    lengths = lognormal_lengths(args.rows)
    tables = [table(lengths[start : start + WINDOW]) for start in range(0, args.rows, WINDOW)]

    def trl() -> list[pa.Table]:
        return [_pack_bfd(rows, CAP) for rows in tables]

    theirs = [sizes for packed in trl() for sizes in packed["seq_lengths"].to_pylist()]
    packs = pack(lengths, CAP, window_size=WINDOW)
    ours = [sizes.tolist() for sizes in np.split(packs.lengths, packs.offsets[1:-1])]
    assert ours == theirs, "the windows differ"

    print(f"lognormal({MU}, {SIGMA}) lengths in 1..{CAP}, windows of {CAP}; one core, medians of {args.rounds}\n")
    print("| what | rows | packed together | CPU ms | rows a CPU second | fill |\n|---|---|---|---|---|---|")
    fast = line("alignite", args.rounds, lengths, WINDOW)
    slow = median(trl, args.rounds)
    each = f"{args.rows:,} | {WINDOW:,} | {slow * 1e3:.1f} | {args.rows / slow:,.0f}"
    print(f"| TRL _pack_bfd, rows of int8 | {each} | same |")
    many = lognormal_lengths(args.many)
    for window in (WINDOW, 10_000, 100_000):
        line("alignite", args.rounds, many, window)
    print(f"\nalignite is {slow / fast:.0f} times as fast as TRL's packer on the same rows")

    draws = 1_000_000
    mixture = Mixture({"a": 100, "b": 5000, "c": 1_000_000}, cap=3000, temperature=2)
    at = 0

    def draw() -> None:
        nonlocal at
        mixture.draw(at, at + draws)
        at += draws

    seconds = median(draw, args.rounds)
    print(f"mixture of 3 sources, into numpy: {seconds / draws * 1e9:.0f} CPU ns a draw")
    print(
        f"trl {importlib.metadata.version('trl')}, numpy {np.__version__}, {platform.processor() or platform.machine()}"
    )


def table(lengths: np.ndarray) -> pa.Table:
    """Rows of one-byte tokens, so that Arrow's copy of them weighs as little as it can."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = pa.array(np.zeros(offsets[-1], np.int8))
    return pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), tokens)})


def line(name: str, rounds: int, lengths: np.ndarray, window: int) -> float:
    """Print ours on these lengths; the CPU seconds."""
    fill = pack(lengths, CAP, window_size=window).fill(CAP)
    seconds = median(lambda: pack(lengths, CAP, window_size=window), rounds)
    count = len(lengths)
    print(
        f"| {name} | {count:,} | {window:,} | {seconds * 1e3:.1f} | {count / seconds:,.0f} | {fill:.3%} |", flush=True
    )
    return seconds


def median(work: Callable[[], object], rounds: int) -> float:
    """CPU seconds of the work, which what else runs here disturbs less; after one round that is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
