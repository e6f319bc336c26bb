"""Cleaning when the disk is full, rows are extreme, or the user stops it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from alignite.config.clean import CleanOptions
from alignite.data.cleaning import clean, deduplicate


def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import resource, sys
from alignite.data.cleaning import deduplicate
from alignite.errors import ResourceError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    deduplicate([f"row {n}" for n in range(5000)], "minhash", folder=sys.argv[1])
except ResourceError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert "500 bytes a row" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_giant_empty_and_odd_texts_are_rows_like_others() -> None:
    giant = "".join(f"{n} " for n in range(2_900_000))
    assert len(giant) > 20_000_000
    rows = ["", giant, "\0", "", "\u202e\ufeff", giant + "more", "\U0001f600" * 1000, "e\u0301" * 1000]
    assert deduplicate(rows, "exact")[1].tolist() == [0, 1, 2, 0, 4, 5, 6, 7]
    assert deduplicate(rows, "minhash")[1].tolist() == [0, 1, 2, 0, 4, 1, 6, 7]
    options = CleanOptions(max_repetition=1.0, max_symbols=0.5, max_chars=20_000_000)
    assert clean(rows, options).counts == {"longer than max_chars": 2, "more symbols than max_symbols": 3}


def test_control_c_stops_it_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import sys
from alignite.data.cleaning import deduplicate
class Endless:
    def __len__(self):
        return 10**9
    def __getitem__(self, rows):
        print("working", flush=True)
        return [f"row {n}" for n in range(rows.start, rows.stop)]
deduplicate(Endless(), "minhash", folder=sys.argv[1])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    assert list(tmp_path.iterdir()) != []
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert list(tmp_path.iterdir()) == []


def test_memory_hardly_grows_with_the_rows(tmp_path: Path) -> None:
    code = """
import resource, sys
from alignite.data.cleaning import deduplicate
class Rows:
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, rows):
        return [f"{n} short row {n * n} of {n % 7} words" for n in range(*rows.indices(self.count))]
for count in (20_000, 170_000):
    kept, _ = deduplicate(Rows(count), "minhash", folder=sys.argv[1], num_threads=2)
    print(len(kept), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (20_000, 170_000)
    # Sketches and bands of 150,000 rows are 68 MB; a row may take 13 bytes here, and its result 16.
    assert after - before < 16e6
