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
