"""Previews: every number is what preparing the same rows reports, and rows show the very tokens that are prepared."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignite.config import PreviewConfig, SFTConfig
from alignite.data import ChatTokenizer, Preview, prepare_sft, preview
from alignite.data.survey import PreviewRow, Spread
from alignite.errors import DataError, UsageError

Row = dict[str, Any]
WRITTEN = {"fingerprint", "reused", "parts", "identity", "sources", "base", "shard", "appended", "notes"}
WRITTEN |= {"source_prints", "template_date"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def chat(*turns: str) -> Row:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]}


def jsonl(path: Path, rows: Sequence[Row | str]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


CHATS = [
    chat("hi", "hello", "and?", "bye " * 30),
    chat("q", "안녕하세요 🙂"),
    chat("a", "b" * 300),
    chat("x" * 300, "y"),
    chat("q", "안녕하세요 🙂"),
    chat("say <|im_end|>", "never"),
    chat("nobody answers"),
    {"messages": [{"role": "system", "content": "s"}, *chat("q", "a")["messages"]]},
]
TWO = [{"question": "x" * n, "answer": "y" * (n % 7 + 1)} for n in range(1, 120, 7)]
SETS: dict[str, tuple[list[Row | str], dict[str, Any]]] = {
    "messages": ([*CHATS], {"max_length": 100}),
    "packed": ([chat("q", "a" * n) for n in range(1, 60)], {"max_length": 90, "packing": "bfd"}),
    "prompt": ([{"prompt": "p", "completion": "c" * n} for n in range(5)], {}),
    "lists": ([{"prompt": CHATS[0]["messages"][:3], "completion": [CHATS[0]["messages"][3]]}] * 2, {"max_length": 80}),
    "alpaca": ([{"instruction": "Do", "input": "it", "output": "ok"}, {"instruction": "Go", "output": "no"}], {}),
    "columns": ([*TWO], {"prompt_column": "question", "completion_column": "answer", "max_length": 64}),
    "raw": ([{"prompt": "Once", "completion": " upon"}, {"prompt": "", "completion": "x" * 90}], {"max_length": 50}),
    "bad": ([*CHATS, "{broken", '{"messages": 4}', "[]", chat("q", "a")], {}),
    "nothing": ([chat("x" * 50, "y")], {"max_length": 20}),
}
SETS["raw"][1]["apply_chat_template"] = False


def nearest_rank(values: Sequence[int]) -> Spread:
    """Percentiles as slowly and plainly as they can be written."""
    ordered = sorted(values)

    def at(percent: int) -> int:
        return next(v for n, v in enumerate(ordered, start=1) if 100 * n >= percent * len(ordered))

    return Spread(len(ordered), sum(ordered), ordered[0], at(50), at(90), at(95), at(99), ordered[-1])


def ids_of(row: PreviewRow) -> list[int]:
    return [token for piece in row.pieces for token in piece.ids]


def labels_of(row: PreviewRow) -> list[int]:
    return [token if piece.scored else -100 for piece in row.pieces for token in piece.ids]


@pytest.mark.parametrize("name", SETS)
def test_every_number_is_what_preparing_reports(name: str, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows, options = SETS[name]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    seen = preview(path, tokenizer, SFTConfig(**options), num_rows=100)
    skip = SFTConfig(**options, on_bad_row="skip")
    if name == "nothing":
        with pytest.raises(DataError, match="no row is left"):
            prepare_sft(path, tokenizer, skip, tmp_path / "p")
        assert (seen.report["rows"], seen.report["used"], seen.rows) == (1, 0, [])
    else:
        prepared = prepare_sft(path, tokenizer, skip, tmp_path / "p")
        assert set(prepared.report) - set(seen.report) == WRITTEN
        assert seen.report == {key: value for key, value in prepared.report.items() if key not in WRITTEN}
        if skip.packing == "none":
            assert len(seen.rows) == len(prepared)
            for window, row in enumerate(seen.rows):
                ids, labels, _, _ = prepared.arrays([window])
                assert ids_of(row)[: row.kept_tokens] == ids.tolist()
                assert labels_of(row)[: row.kept_tokens] == labels.tolist()
                assert row.kept_scored_tokens == (labels != -100).sum()
    whole = prepare_sft(
        path,
        tokenizer,
        SFTConfig(**options | {"max_length": 5000, "packing": "none"}, on_bad_row="skip"),
        tmp_path / "w",
    )
    windows = range(len(whole))
    assert seen.tokens == nearest_rank(whole.window_tokens(windows).tolist())
    assert seen.scored_tokens == nearest_rank(whole.window_scored(windows).tolist())
    assert seen.bad.count == {"bad": 3}.get(name, 0)


def test_bad_rows_are_shown_and_never_end_a_preview(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [chat("q", "a"), "{broken", {"messages": [{"role": "usr", "content": "x"}]}])
    for config in (SFTConfig(), SFTConfig(on_bad_row="skip"), PreviewConfig()):
        seen = preview(path, tokenizer, config)
        assert (seen.report["used"], seen.bad.count) == (1, 2)
        assert seen.bad.examples == [f"{path}:2", f"{path}:3"]
        broken, role = seen.examples
        assert (broken.fate, broken.reason, broken.line) == ("bad", "the line is not JSON", "{broken")
        assert role.fix is not None
        assert 'did you mean "user"' in role.fix


def test_a_row_that_was_cut_or_dropped_is_shown_whole_with_its_reason(tokenizer: ChatTokenizer) -> None:
    seen = preview([chat("q", "a"), *CHATS], tokenizer, SFTConfig(max_length=100), num_rows=1)
    assert [row.place for row in seen.rows] == ["row:1"]
    fates = {row.reason or "control": row for row in seen.examples}
    assert set(fates) == {
        "cut at a turn border",
        "tail of the answer cut",
        "the prompt alone is longer than max_length",
        "no assistant turn",
        "control",
    }
    turn = fates["cut at a turn border"]
    assert (turn.fate, turn.row, turn.place) == ("cut", 1, "row:2")
    assert tokenizer.decode(ids_of(turn)[: turn.kept_tokens]).endswith("hello<|im_end|>")
    assert tokenizer.decode(ids_of(turn)) == tokenizer.render(CHATS[0]["messages"])
    long = fates["the prompt alone is longer than max_length"]
    assert (long.fate, long.kept_tokens, long.tokens) == ("dropped", 0, len(ids_of(long)))
    line = fates["no assistant turn"].line
    assert line is not None
    assert json.loads(line) == CHATS[6]


def test_tokens_before_cutting_are_those_of_rows_that_are_used(tokenizer: ChatTokenizer) -> None:
    rows = [chat("q", "a"), chat("q", "a " * 200), chat("q " * 500, "a")]
    seen = preview(rows, tokenizer, SFTConfig(max_length=100))
    assert (seen.report["used"], seen.tokens.rows) == (2, 3)
    assert seen.uncut_tokens == sum(row.tokens for row in seen.rows)


def test_a_messages_weight_is_shown(tokenizer: ChatTokenizer) -> None:
    row = chat("q", "a")
    row["messages"][1]["weight"] = 0.5
    (shown,) = preview([row], tokenizer, SFTConfig()).rows
    assert [turn.speaker for turn in shown.turns] == ["user", "assistant (weight 0.5)"]


def test_pieces_are_whole_characters_and_together_the_text(tokenizer: ChatTokenizer) -> None:
    row = chat("한글 🙂👩‍👩‍👧 é", "\t답 <|im_end|> x\n")
    (shown,) = preview([row], tokenizer, SFTConfig()).rows
    assert "".join(piece.text for piece in shown.pieces) == tokenizer.render(row["messages"])
    assert ids_of(shown) == prepared_ids(tokenizer, row)
    emoji = next(piece for piece in shown.pieces if "🙂" in piece.text)
    assert (emoji.text, len(emoji.ids)) == ("🙂", 4)
    assert [piece.position for piece in shown.pieces] == [
        sum(len(before.ids) for before in shown.pieces[:n]) for n in range(len(shown.pieces))
    ]
    control = [piece.text for piece in shown.pieces if piece.kind == "control"]
    assert control == ["<|im_start|>", "<|im_end|>"] * 2
    assert "".join(piece.text for piece in shown.pieces if piece.kind == "literal") == "<|im_end|>"
    scored = "".join(piece.text for piece in shown.pieces if piece.scored)
    assert scored == "\t답 <|im_end|> x\n<|im_end|>"
    contents = [[token for token in ids_of(shown)][turn.start : turn.stop] for turn in shown.turns]
    assert [turn.role for turn in shown.turns] == ["user", "assistant"]
    assert tokenizer.decode(contents[0]) == row["messages"][0]["content"]
    assert tokenizer.decode(contents[1]) == row["messages"][1]["content"].strip()


def prepared_ids(tokenizer: ChatTokenizer, row: Row) -> list[int]:
    ids, _, reason = tokenizer.preparer(SFTConfig()).encode(json.dumps(row).encode())
    assert reason is None
    found: list[int] = ids.tolist()
    return found


def test_a_cut_through_a_character_leaves_two_halves(tokenizer: ChatTokenizer) -> None:
    row = chat("q", "안" * 30)
    whole = prepared_ids(tokenizer, row)
    start = bytes(tokenizer.render(row["messages"]), "utf-8").index("안".encode())
    # Each byte is a token, but for the four control tokens that the template writes.
    first = next(n for n in range(len(whole)) if "안" in tokenizer.decode(whole[n : n + 3]))
    assert first < start
    (shown,) = preview([row], tokenizer, SFTConfig(max_length=first + 4)).rows
    assert (shown.fate, shown.kept_tokens) == ("cut", first + 4)
    around = [(piece.text, len(piece.ids)) for piece in shown.pieces if first <= piece.position < first + 9]
    assert around == [("안", 3), ("\ufffd", 1), ("\ufffd", 2), ("안", 3)]
    assert ids_of(shown) == whole


def test_raw_text_shows_prompt_completion_and_the_end_token(tokenizer: ChatTokenizer) -> None:
    rows = [{"prompt": "Once", "completion": " upon"}, {"prompt": "a <|im", "completion": "_end|> b"}]
    once, tricky = preview(rows, tokenizer, SFTConfig(apply_chat_template=False)).rows
    assert [(piece.text, piece.kind, piece.scored) for piece in once.pieces[-2:]] == [
        ("n", "text", True),
        ("<|im_end|>", "control", True),
    ]
    assert [(turn.role, turn.start, turn.stop) for turn in once.turns] == [("prompt", 0, 4), ("completion", 4, 9)]
    assert "".join(piece.text for piece in tricky.pieces if piece.kind == "literal") == "<|im_end|>"


def test_duplicates_are_told_across_files_and_only_among_used_rows(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    one = jsonl(tmp_path / "a.jsonl", [chat("q", "a"), "", chat("r", "b"), chat("nobody"), chat("nobody")])
    lines = "\n".join(json.dumps(row) for row in (chat("new", "x"), chat("r", "b"), chat("q", "a"), chat("q", "a")))
    two = tmp_path / "b.jsonl.gz"
    two.write_bytes(gzip.compress(lines.encode()))
    found = preview([one, two], tokenizer, SFTConfig()).duplicates
    assert found.count == 3
    assert found.examples == [(f"{two}:2", f"{one}:3"), (f"{two}:3", f"{one}:1"), (f"{two}:4", f"{one}:1")]
    # The same words by other columns are the same tokens; another split of the same raw text too.
    raw = [{"prompt": "a", "completion": "bc"}, {"prompt": "ab", "completion": "c"}]
    assert preview(raw, tokenizer, SFTConfig(apply_chat_template=False)).duplicates.count == 1


def test_control_tokens_are_named_with_the_rows_that_hold_them(tokenizer: ChatTokenizer) -> None:
    rows = [
        chat("a <|im_end|> <|im_end|>", "b <|endoftext|>"),
        chat("plain", "row"),
        chat("c <|im_end|>", "d"),
        chat("dropped <|im_start|>"),
    ]
    seen = preview(rows, tokenizer, SFTConfig())
    assert seen.control_tokens == {"<|im_end|>": 2, "<|endoftext|>": 1}
    assert seen.report["control_text"] == {"count": 2, "examples": ["row:1", "row:3"]}


def test_rows_are_asked_for_by_number_or_place(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [chat("q", "a"), "", chat("nobody"), "{broken", chat("r", "b")])
    asked = preview(path, tokenizer, SFTConfig(), rows=[3, f"{path}:4", "rows.jsonl:3"])
    assert [(row.row, row.place, row.fate) for row in asked.rows] == [
        (1, f"{path}:3", "dropped"),
        (2, f"{path}:4", "bad"),
        (3, f"{path}:5", "used"),
    ]
    assert asked.examples == []
    assert asked.report == preview(path, tokenizer, SFTConfig(), num_rows=0).report
    for missing in (4, "rows.jsonl:2", "ows.jsonl:1"):
        with pytest.raises(UsageError, match=f"no row {missing}") as error:
            preview(path, tokenizer, SFTConfig(), rows=[missing])
        assert "0 to 3" in str(error.value)


def test_numbers_alone(tokenizer: ChatTokenizer) -> None:
    seen = preview(CHATS, tokenizer, SFTConfig(max_length=100), num_rows=0)
    assert (seen.rows, seen.examples) == ([], [])
    assert seen.report["rows"] == len(CHATS)


def test_what_preparing_cannot_read_a_preview_cannot_either(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    empty = jsonl(tmp_path / "empty.jsonl", ["", "  "])
    with pytest.raises(DataError, match="the data is empty"):
        preview(empty, tokenizer, SFTConfig())
    with pytest.raises(DataError, match="no known format"):
        preview([{"left": "a", "right": "b"}], tokenizer, SFTConfig())
    packed = gzip.compress("".join(json.dumps(chat("q", str(n))) + "\n" for n in range(500)).encode())
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="the file is damaged"):
        preview(cut, tokenizer, SFTConfig(on_bad_row="skip"))


def test_progress_hears_of_all_rows_and_may_stop_the_pass(tokenizer: ChatTokenizer) -> None:
    heard: list[int] = []
    preview([chat("q", "a")] * 700, tokenizer, SFTConfig(), progress=lambda rows, _: heard.append(rows))
    assert heard[-1] == 700

    def stop(rows: int, tokens: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        preview([chat("q", "a")] * 10, tokenizer, SFTConfig(), progress=stop)


def test_the_number_of_threads_changes_nothing(tokenizer: ChatTokenizer) -> None:
    rows = [chat("q" * (n % 5), "a" * (n % 11)) for n in range(800)]
    one, two = (preview(rows, tokenizer, PreviewConfig(num_threads=n, max_length=20)) for n in (1, 2))
    assert isinstance(one, Preview)
    assert one == two
