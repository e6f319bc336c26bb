"""From rows to windows: formats, masks, cuts, counts, packing, and what a prepared set is on disk."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, MaskError

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def chat(*turns: str) -> Row:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]}


def jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def segments_of(prepared: PreparedSet) -> list[tuple[list[int], list[int]]]:
    found = []
    for window in range(len(prepared)):
        ids, labels, positions, segments = prepared.arrays([window])
        for start, length, parent in segments.tolist():
            part = slice(start, start + length)
            assert parent == -1
            assert positions[part].tolist() == list(range(length))
            found.append((ids[part].tolist(), labels[part].tolist()))
    return found


def scored(tokenizer: ChatTokenizer, labels: Sequence[int]) -> str:
    return tokenizer.decode([label for label in labels if label != -100])


def test_the_mask_is_each_answer_and_its_end(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [
        chat("hi", "hello", "and?", "bye"),
        {"messages": [{"role": "system", "content": "s"}, *chat("q", "a")["messages"]]},
    ]
    prepared = prepare_sft(rows, tokenizer, SFTConfig(), tmp_path / "p")
    (first, labels), (second, others) = segments_of(prepared)
    assert tokenizer.decode(first) == tokenizer.render(rows[0]["messages"])
    assert tokenizer.decode(second) == tokenizer.render(rows[1]["messages"])
    assert scored(tokenizer, labels) == "hello<|im_end|>bye<|im_end|>"
    assert scored(tokenizer, others) == "a<|im_end|>"
    assert all(label in (-100, token) for token, label in zip(first, labels, strict=True))
    assert labels[0] == -100
    assert labels[-1] == -100  # the template's newline


def test_formats_say_the_same(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    expected = segments_of(prepare_sft([chat("Do it\n\nnow", "ok")], tokenizer, SFTConfig(), tmp_path / "messages"))
    columns = SFTConfig(prompt_column="q", completion_column="a")
    user, answer = chat("Do it\n\nnow")["messages"], [{"role": "assistant", "content": "ok"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Do it\n\n"}, {"type": "text", "text": "now"}]}]
    same: dict[str, tuple[Row, SFTConfig]] = {
        "prompt": ({"prompt": "Do it\n\nnow", "completion": "ok", "id": 7}, SFTConfig()),
        "lists": ({"prompt": user, "completion": answer}, SFTConfig()),
        "alpaca": ({"instruction": "Do it", "input": "now", "output": "ok"}, SFTConfig()),
        "columns": ({"q": "Do it\n\nnow", "a": "ok", "messages": 3}, columns),
        "parts": ({"messages": [*parts, *answer]}, SFTConfig()),
    }
    for name, (row, config) in same.items():
        assert segments_of(prepare_sft([row], tokenizer, config, tmp_path / name)) == expected, name


def test_sources_say_the_same(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [chat(f"question {n} \u2028 안녕", "answer " * (n % 4 + 1)) for n in range(20)]
    plain = jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    halves = tmp_path / "halves"
    halves.mkdir()
    jsonl(halves / "a.jsonl", rows[:9])
    jsonl(halves / "b.jsonl", rows[9:])
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\n"))
    sources: dict[str, Any] = {
        "file": plain,
        "gzip": str(tmp_path / "rows.jsonl.gz"),
        "folder": halves,
        "glob": str(halves / "*.jsonl"),
        "list": [halves / "a.jsonl", halves / "b.jsonl"],
        "marked": tmp_path / "marked.jsonl",
        "rows": rows,
        "generator": (row for row in rows),
        "dataset": Dataset.from_list(rows),
    }
    expected = None
    for name, source in sources.items():
        prepared = prepare_sft(source, tokenizer, SFTConfig(), tmp_path / "out" / name)
        assert prepared.report["used"] == 20
        found = segments_of(prepared)
        expected = expected or found
        assert found == expected, name


def test_raw_text_scores_the_completion_and_one_end(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    config = SFTConfig(apply_chat_template=False)
    prepared = prepare_sft([{"prompt": "Once", "completion": " upon"}], tokenizer, config, tmp_path / "p")
    ((ids, labels),) = segments_of(prepared)
    assert tokenizer.decode(ids) == "Once upon<|im_end|>"
    assert scored(tokenizer, labels) == " upon<|im_end|>"


def test_long_rows_are_cut_at_a_turn_or_in_an_answer_and_counted(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [chat("a", "b" * 10, "c", "d" * 100), chat("a", "e" * 200), chat("x" * 200, "y"), chat("short", "fits")]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    prepared = prepare_sft(path, tokenizer, SFTConfig(max_length=64), tmp_path / "p")
    kept = segments_of(prepared)
    assert scored(tokenizer, kept[0][1]) == "b" * 10 + "<|im_end|>"
    tail = scored(tokenizer, kept[1][1])
    assert set(tail) == {"e"}  # cut inside: nothing says that the turn ended
    assert len(kept[1][0]) == 64
    assert all(len(ids) <= 64 for ids, _ in kept)
    report = prepared.report
    assert (report["rows"], report["used"]) == (4, 3)
    assert sum(entry["count"] for entry in report["truncated"].values()) == 2
    ((reason, dropped),) = report["dropped"].items()
    assert reason
    assert dropped == {"count": 1, "examples": [f"{path}:3"]}


def test_bad_rows_are_skipped_and_counted_when_asked(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(chat("q", "a"))
    path.write_bytes("\n".join([good, "{broken", json.dumps({"messages": 4}), good]).encode() + b"\n\xff\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        prepare_sft(path, tokenizer, SFTConfig(on_bad_row="error"), tmp_path / "strict")
    assert not (tmp_path / "strict").exists()
    report = prepare_sft(path, tokenizer, SFTConfig(), tmp_path / "p").report
    assert (report["rows"], report["used"]) == (5, 2)
    assert sorted(place for entry in report["dropped"].values() for place in entry["examples"]) == [
        f"{path}:{line}" for line in (2, 3, 5)
    ]


def test_control_text_in_contents_is_kept_as_text_and_counted(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    row = chat("ignore <|im_end|> this", "say <|endoftext|> and <|im_end|>\n")
    prepared = prepare_sft([row], tokenizer, SFTConfig(), tmp_path / "p")
    ((ids, labels),) = segments_of(prepared)
    end, start = tokenizer.encode("<|im_end|>")[0], tokenizer.encode("<|im_start|>")[0]
    assert (ids.count(end), ids.count(start)) == (2, 2)
    assert tokenizer.decode(ids) == tokenizer.render(row["messages"])
    assert scored(tokenizer, labels) == "say <|endoftext|> and <|im_end|>\n<|im_end|>"
    assert prepared.report["control_text"]["count"] == 1


def twin(lengths: list[int], capacity: int) -> list[int]:
    """Tokens of the windows of best fit decreasing, as slowly and plainly as it can be written."""
    windows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [n for n, held in enumerate(windows) if held + length <= capacity]
        if fitting:
            windows[max(fitting, key=lambda n: windows[n])] += length
        else:
            windows.append(length)
    return sorted(windows)


def test_packing_is_best_fit_decreasing_and_loses_nothing(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    rows = [chat("q", "x" * int(n)) for n in source.integers(1, 90, 120)]
    single = prepare_sft(rows, tokenizer, SFTConfig(max_length=128), tmp_path / "none")
    packed = prepare_sft(rows, tokenizer, SFTConfig(max_length=128, packing="bfd"), tmp_path / "bfd")
    assert sorted(segments_of(single)) == sorted(segments_of(packed))
    lengths = [len(ids) for ids, _ in segments_of(single)]
    table = packed_table(packed)
    assert sorted(packed.window_tokens(range(len(packed))).tolist()) == twin(lengths, 128)
    assert sorted(row for window in table["row_ids"].to_pylist() for row in window) == list(range(120))
    assert [sum(part) for part in table["seq_lengths"].to_pylist()] == packed.window_tokens(range(len(packed))).tolist()
    assert packed.report["fill"] > 0.9 > single.report["fill"]


def packed_table(prepared: PreparedSet) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(prepared.folder / "data-00000.arrow")) as file:
        return pa.ipc.open_file(file).read_all()


def test_others_read_the_file(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    from datasets import Dataset

    rows = [chat("q", "answer " * n) for n in range(1, 8)]
    prepared = prepare_sft(rows, tokenizer, SFTConfig(), tmp_path / "p")
    table = packed_table(prepared)
    names = ["input_ids", "labels", "weights", "seq_lengths", "num_scored", "row_ids", "sources", "lines"]
    assert table.schema.names == [*names, "parents", "records", "roles", "scores", "criteria", "record_weights"]
    assert table.schema.metadata[b"alignite.fingerprint"].decode() == prepared.fingerprint
    dataset = Dataset(table)
    for window, row in enumerate(dataset):
        ids, labels, _, _ = prepared.arrays([window])
        assert row["input_ids"] == ids.tolist()
        assert row["labels"] == labels.tolist()
        assert row["num_scored"] == sum(label != -100 for label in row["labels"]) == prepared.window_scored([window])[0]


def test_a_batch_is_the_windows_in_the_order_asked_and_shares_memory(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    import torch

    prepared = prepare_sft([chat("q", "a" * n) for n in range(1, 6)], tokenizer, SFTConfig(), tmp_path / "p")
    ids, labels, positions, segments = prepared.arrays([4, 0, 4])
    single = [prepared.arrays([n]) for n in (4, 0, 4)]
    assert ids.tolist() == [token for part in single for token in part[0].tolist()]
    assert segments[:, 1].tolist() == [len(part[0]) for part in single]
    assert segments[:, 0].tolist() == np.cumsum([0, *segments[:-1, 1]]).tolist()
    for array in (ids, labels, positions, segments):
        assert array.dtype == np.int64
        assert array.flags.writeable
        tensor = torch.from_numpy(array)
        assert tensor.data_ptr() == array.ctypes.data
    batch = prepared.batch([4, 0, 4])
    assert batch.input_ids.tolist() == ids.tolist()
    assert (batch.num_windows, batch.num_tokens) == (3, len(ids))
    again = pickle.loads(pickle.dumps(prepared))
    assert again.arrays([2])[0].tolist() == prepared.arrays([2])[0].tolist()
    with pytest.raises(ValueError, match="5"):
        prepared.arrays([5])
    with pytest.raises(ValueError, match="-1"):
        prepared.arrays([-1])


def test_a_set_is_made_again_only_when_something_that_decides_it_changes(
    tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [chat("q", "a"), chat("r", "b")])
    folder = tmp_path / "p"

    def fingerprint(config: SFTConfig, with_tokenizer: ChatTokenizer = tokenizer) -> tuple[str, bool]:
        prepared = prepare_sft(path, with_tokenizer, config, folder)
        return prepared.fingerprint, prepared.report["reused"]

    first = fingerprint(SFTConfig(template_date="2026-01-01"))
    assert first[1] is False
    os.utime(path)
    assert fingerprint(SFTConfig(template_date="2026-01-01", num_threads=1, seed=9)) == (first[0], True)
    # The template asks for no date.
    assert fingerprint(SFTConfig(template_date="2026-01-02")) == (first[0], True)
    changed = [
        SFTConfig(template_date="2026-01-01", max_length=99),
        SFTConfig(template_date="2026-01-01", packing="bfd"),
    ]
    seen = {first[0]}
    for config in changed:
        found, reused = fingerprint(config)
        assert not reused
        seen.add(found)
    other = shutil.copytree(tokenizer.folder, tmp_path / "model")
    (other / "chat_template.jinja").write_text(str(tokenizer.chat_template) + "{# other #}")
    seen.add(fingerprint(SFTConfig(template_date="2026-01-01"), ChatTokenizer.from_folder(other))[0])
    jsonl(path, [chat("q", "a"), chat("r", "c")])
    seen.add(fingerprint(SFTConfig(template_date="2026-01-01"))[0])
    assert len(seen) == 5


def test_threads_do_not_change_the_result(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [chat(f"q{n}", "x" * (n % 37 + 1)) for n in range(500)]
    sets = [
        prepare_sft(rows, tokenizer, SFTConfig(packing="bfd", max_length=200, num_threads=n), tmp_path / str(n))
        for n in (1, 2, 5)
    ]
    assert len({(s.folder / "data-00000.arrow").read_bytes() for s in sets}) == 1


def test_progress_is_told(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    seen: list[int] = []
    prepare_sft([chat("q", "a")] * 50, tokenizer, SFTConfig(), tmp_path / "p", lambda rows, _: seen.append(rows))
    assert seen
    assert seen == sorted(seen)
    assert seen[-1] == 50


def test_a_template_without_an_end_token_is_refused(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    folder = shutil.copytree(tokenizer.folder, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(MaskError, match="no end token") as error:
        prepare_sft([chat("q", "a")], ChatTokenizer.from_folder(folder), SFTConfig(), tmp_path / "p")
    assert error.value.where == "row:1"
    assert error.value.fix
