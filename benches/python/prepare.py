"""Chats in memory to packed Arrow: alignite against TRL's SFT preparation, on the same rows, tokenizer and template.

Both sides start from an Arrow table in memory and end with packed windows. Equality comes first: every row's ids, every
row's labels (once the newline is set aside that TRL's template scores after the end token), and every pack. Then each
contestant runs in a process of its own, REPEATS times in turn; times are CPU seconds of the process (user and system,
with children), so that a busy machine changes them little. Loading (imports, tokenizer, self-test of the fast backend)
is timed apart.

    python benches/python/prepare.py [--rows 20000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parents[3] / "shared" / "data"
MAX_LENGTH = 2048
# ChatML as SmolLM2 speaks it, with the tags that TRL needs; like TRL's own training templates it tags the newline too.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def chats(count: int) -> list[dict[str, Any]]:
    """GSM8K and HH as conversations when the data are there, repeated with other numbers to ``count`` rows."""
    rows: list[list[dict[str, str]]] = []
    if SHARED.is_dir():
        for row in read(SHARED / "gsm8k_train.jsonl.gz"):
            rows.append([{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}])
        for row in read(SHARED / "hh_harmless.jsonl.gz"):
            parts = row["chosen"].split("\n\n")
            turns = [
                {"role": "user" if part.startswith("Human:") else "assistant", "content": part.split(": ", 1)[-1]}
                for part in parts
                if part.startswith(("Human:", "Assistant:"))
            ]
            # A row without a reply is left out by one side and trained on by the other.
            is_whole = all(turn["content"].strip() for turn in turns)
            if len(turns) > 1 and turns[-1]["role"] == "assistant" and is_whole:
                rows.append(turns)
    else:
        words = [w for w in Path(__file__).read_text().split() if w.isascii()]
        draw = random.Random(0)
        for _ in range(2000):
            text = lambda n: " ".join(draw.choice(words) for _ in range(n))  # noqa: E731
            rows.append(
                [{"role": "user", "content": text(60)}, {"role": "assistant", "content": text(draw.randrange(20, 120))}]
            )
    draw = random.Random(1)
    draw.shuffle(rows)
    made = []
    while len(made) < count:
        for row in rows[: count - len(made)]:
            tag = f" (case {len(made)})" if len(made) >= len(rows) else ""
            made.append({"messages": [{**row[0], "content": row[0]["content"] + tag}, *row[1:]]})
    return made


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def with_template(folder: Path) -> Path:
    """The SmolLM2 tokenizer with the template of this benchmark, beside the prepared sets."""
    from alignite.demo.run import gguf_path
    from alignite.models.gguf import import_gguf

    import_gguf(gguf_path(), folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def run_trl(model: Path, table: Path, packing: bool, rows: Path | None) -> dict[str, float]:
    started, before = time.perf_counter(), cpu()
    import datasets
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = object.__new__(SFTTrainer)
    trainer._tokenizer = tokenizer
    trainer.chat_template = TEMPLATE
    trainer.completion_only_loss = False
    config = SFTConfig(
        output_dir=str(table.parent / "trl"), max_length=MAX_LENGTH, packing=packing, packing_strategy="bfd",
        assistant_only_loss=True, shuffle_dataset=False, use_cpu=True, bf16=False, report_to=[],
    )  # fmt: skip
    data = datasets.Dataset(datasets.table.InMemoryTable.from_file(str(table)))
    loading = cpu() - before
    wall, before = time.perf_counter(), cpu()
    done = trainer._prepare_dataset(data, tokenizer, config, packing, None, "train")
    seconds, wall = cpu() - before, time.perf_counter() - wall
    if rows is not None:
        done.with_format(None).to_parquet(rows)
    return {"cpu": seconds, "wall": wall, "loading": loading, "tokens": 0, "total": time.perf_counter() - started}


def run_alignite(
    model: Path, table: Path, packing: bool, rows: Path | None, backend: str, threads: int
) -> dict[str, float]:
    before = cpu()
    import pyarrow as pa

    from alignite.config import PrepareConfig
    from alignite.data import ChatTokenizer, prepare

    config = PrepareConfig(
        max_length=MAX_LENGTH, packing="bfd" if packing else "none", num_threads=threads, tokenizer_backend=backend
    )
    tokenizer = ChatTokenizer.from_folder(model)
    tokenizer.preparer(config)
    with pa.memory_map(str(table)) as source:
        data = pa.ipc.open_stream(source).read_all()
    loading = cpu() - before
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        wall, before = time.perf_counter(), cpu()
        prepared = prepare(data, tokenizer, config, Path(folder) / "set")
        seconds, wall = cpu() - before, time.perf_counter() - wall
        report = prepared.report
        if rows is not None:
            prepared.export(rows)
    return {"cpu": seconds, "wall": wall, "loading": loading, "tokens": report["tokens"], "used": report["used"]}


CONTESTANTS = {
    "TRL 1.16": ["trl"],
    "alignite, reference tokenizer": ["alignite", "reference", "1"],
    "alignite": ["alignite", "fast", "1"],
    "alignite, 2 threads": ["alignite", "fast", "2"],
}


def child(name: str, model: Path, table: Path, packing: bool, rows: Path | None = None) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", *CONTESTANTS[name], str(model), str(table), str(packing)]
    done = subprocess.run([*command, str(rows or "")], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(model: Path, table: Path, folder: Path, count: int) -> None:
    """Assert that both sides make the same ids, labels and packs."""
    import pyarrow.parquet as pq

    for packing in (False, True):
        found = {}
        for name in ("TRL 1.16", "alignite", "alignite, reference tokenizer"):
            path = folder / f"{name.replace(' ', '-')}-{packing}.parquet"
            child(name, model, table, packing, path)
            found[name] = pq.read_table(path, columns=["input_ids", "labels"]).to_pydict()
        ours, theirs = found["alignite"], found["TRL 1.16"]
        assert ours == found["alignite, reference tokenizer"]
        if packing:
            # TRL packs 1,000 rows at a time, alignite 10,000: packing.py compares the packers, this the tokens.
            kept = sorted(token for window in ours["input_ids"] for token in window)
            assert kept == sorted(token for window in theirs["input_ids"] for token in window)
            continue
        assert ours["input_ids"] == theirs["input_ids"], "the ids differ"
        extra = 0
        for ids, mine, other in zip(ours["input_ids"], ours["labels"], theirs["labels"], strict=True):
            for position, (label, their_label) in enumerate(zip(mine, other, strict=True)):
                if label != their_label:
                    # The newline after an end token, which the model never has to emit.
                    assert label == -100
                    assert their_label == ids[position]
                    extra += 1
        print(f"equal: ids of {count} rows; labels but for {extra} newlines after an end token, which TRL scores")


def main() -> None:
    if "--child" in sys.argv:
        words = sys.argv[sys.argv.index("--child") + 1 :]
        if words[0] == "trl":
            model, table, packing, rows = words[1:]
            result = run_trl(Path(model), Path(table), packing == "True", Path(rows) if rows else None)
        else:
            backend, threads, model, table, packing, rows = words[1:]
            result = run_alignite(
                Path(model), Path(table), packing == "True", Path(rows) if rows else None, backend, int(threads)
            )
        print(json.dumps(result))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = with_template(folder / "model")
        import pyarrow as pa

        data = pa.Table.from_pylist(chats(args.rows))
        table = folder / "rows.arrow"
        with pa.ipc.new_stream(table, data.schema) as writer:
            writer.write_table(data)
        size = sum(len(m["content"].encode()) for row in data.to_pylist() for m in row["messages"])
        print(f"{args.rows} chats, {size / args.rows:.0f} bytes of content each, max_length {MAX_LENGTH}, bfd")
        compare(model, table, folder, args.rows)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
        for _ in range(args.repeats):
            for name in CONTESTANTS:
                runs[name].append(child(name, model, table, True))
        base = statistics.median(run["cpu"] for run in runs["TRL 1.16"])
        print(f"{'':32}{'us a row':>10}{'rows/CPU-s':>12}{'ratio':>8}{'wall s':>9}{'loading s':>11}")
        for name, results in runs.items():
            seconds = statistics.median(run["cpu"] for run in results)
            wall = statistics.median(run["wall"] for run in results)
            loading = statistics.median(run["loading"] for run in results)
            each = f"{1e6 * seconds / args.rows:10.1f}{args.rows / seconds:12.0f}{base / seconds:8.2f}"
            print(f"{name:32}{each}{wall:9.2f}{loading:11.2f}")
        one, two = (statistics.median(r["wall"] for r in runs[n]) for n in ("alignite", "alignite, 2 threads"))
        print(f"two threads: {one / two:.2f} times one (wall)")


if __name__ == "__main__":
    main()
