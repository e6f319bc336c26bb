"""Near and exact duplicates: alignite against datasketch and a Python set.

Rows of random words with planted duplicates, which every contestant must find; a contestant is a process of its own,
and medians are over its runs. datasketch sketches each row's word 5-grams with 128 permutations and asks an index of
the same bands; making the n-grams is part of the work on both sides.

    python benches/python/dedup.py                        # the table
    python benches/python/dedup.py --memory 1000000       # peak memory of alignite over so many short rows
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RUNS = 3
VOCABULARY = 20_000


def rows_of(count: int) -> tuple[list[str], list[str], dict[int, int]]:
    """Rows, the same with near duplicates instead of exact ones, and which row each planted one repeats."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(VOCABULARY)]
    exact: list[str] = []
    near: list[str] = []
    planted = {}
    for row in range(count):
        if row % 10 == 9:
            source = row - rng.randint(1, 9)
            planted[row] = source
            exact.append(exact[source])
            # One word at an end changes one n-gram of a hundred.
            near.append(near[source] + " " + rng.choice(vocabulary))
        else:
            text = " ".join(rng.choices(vocabulary, k=rng.randint(60, 180)))
            exact.append(text)
            near.append(text)
    return exact, near, planted


def alignite(rows: list[str], method: str, threads: int) -> list[int]:
    from alignite.data.cleaning import deduplicate

    return [int(first) for first in deduplicate(rows, method, num_threads=threads)[1]]


def datasketch(rows: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=128, params=(16, 8))
    firsts: list[int] = []
    sketches: list[MinHash] = []
    for row, text in enumerate(rows):
        words = text.lower().split()
        sketch = MinHash(num_perm=128)
        sketch.update_batch({" ".join(words[n : n + 5]).encode() for n in range(max(1, len(words) - 4))})
        alike = [other for other in index.query(sketch) if sketches[other].jaccard(sketch) >= 0.8]
        firsts.append(firsts[min(alike)] if alike else row)
        index.insert(row, sketch, check_duplication=False)
        sketches.append(sketch)
    return firsts


def python_set(rows: list[str]) -> list[int]:
    seen: dict[bytes, int] = {}
    return [
        seen.setdefault(hashlib.blake2b(text.encode(), digest_size=16).digest(), row) for row, text in enumerate(rows)
    ]


CONTESTANTS: dict[str, tuple[str, Callable[[list[str]], list[int]]]] = {
    "alignite minhash, 1 thread": ("near", lambda rows: alignite(rows, "minhash", 1)),
    "alignite minhash, 2 threads": ("near", lambda rows: alignite(rows, "minhash", 2)),
    "datasketch MinHashLSH": ("near", datasketch),
    "alignite exact, 1 thread": ("exact", lambda rows: alignite(rows, "exact", 1)),
    "Python dict of blake2b": ("exact", python_set),
}


def contest(name: str, count: int) -> None:
    kind, work = CONTESTANTS[name]
    exact, near, planted = rows_of(count)
    rows = near if kind == "near" else exact
    expected = [planted.get(row, row) for row in range(count)]
    expected = [expected[first] for first in expected]
    seconds, cpu = [], []
    for run in range(RUNS + 1):
        start, used = time.perf_counter(), time.process_time()
        found = work(rows)
        if run:
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - used)
        assert found == expected, f"{name} did not find the planted duplicates, and only them"
    print(json.dumps([count / statistics.median(seconds), count / statistics.median(cpu)]))


class Generated:
    """Short rows that are made when they are asked for, so that they take no memory; each tenth repeats another."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> list[str]:
        numbers = range(*rows.indices(self.count))
        return [" ".join(f"{(n - n % 10 % 9 // 8) * k % 999_999_937:x}" for k in range(1, 17)) for n in numbers]


def memory(count: int) -> None:
    from alignite.data.cleaning import deduplicate

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    with tempfile.TemporaryDirectory() as folder:
        deduplicate(Generated(20_000), "minhash", num_threads=2, folder=folder)
        before, start = peak(), time.perf_counter()
        kept, _ = deduplicate(Generated(count), "minhash", num_threads=2, folder=folder)
        seconds = time.perf_counter() - start
    assert len(kept) == count - count // 10, len(kept)
    more = peak() - before
    print(f"{count} rows, {len(kept)} kept, {seconds:.0f} s: peak {peak() / 2**20:.0f} MiB, ", end="")
    print(f"{more / 2**20:.0f} MiB more than for 20,000 rows, {more / count:.0f} bytes a row with Python's results")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--memory", type=int, metavar="ROWS")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        return contest(args.contestant, args.rows)
    if args.memory:
        return memory(args.memory)
    print("| contestant | rows/s | rows per CPU-second | x peer, per CPU-second |\n|---|---|---|---|")
    rates = {}
    for name in CONTESTANTS:
        command = [sys.executable, str(Path(__file__)), "--contestant", name, "--rows", str(args.rows)]
        rates[name] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for name, (wall, cpu) in rates.items():
        peer = "datasketch MinHashLSH" if CONTESTANTS[name][0] == "near" else "Python dict of blake2b"
        print(f"| {name} | {wall:,.0f} | {cpu:,.0f} | {cpu / rates[peer][1]:.1f} |")
    print(
        f"{args.rows} rows of 60 to 180 words, a tenth planted; datasketch {importlib.metadata.version('datasketch')}"
    )
    return None


if __name__ == "__main__":
    main()
