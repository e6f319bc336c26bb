"""Formats and converters as Python users call them; the readers' own cases are tested in Rust."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from alignite.config import SFTConfig
from alignite.data.convert import convert, convert_rows, readable_formats, writable_formats
from alignite.data.prepare import prepare_sft
from alignite.data.survey import preview
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, ResourceError, UsageError

MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
CALL = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
WITH_TOOL: list[dict[str, Any]] = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": CALL},
    {"role": "tool", "content": "1"},
    {"role": "assistant", "content": "one", "weight": 0.5},
]


def one(row: dict[str, Any], to: str, **options: Any) -> tuple[dict[str, Any], list[str]]:
    rows, report = convert_rows([row], to, **options)
    assert len(rows) == report.written == 1
    return rows[0], list(report.lost)


@pytest.mark.parametrize(
    ("row", "to"),
    [
        ({"messages": WITH_TOOL, "tools": TOOLS}, "sharegpt"),
        ({"messages": [*MESSAGES, *MESSAGES, MESSAGES[0]]}, "sharegpt"),
        ({"messages": [{"role": "system", "content": "s"}, *MESSAGES, *MESSAGES]}, "alpaca"),
        ({"messages": WITH_TOOL, "tools": TOOLS, "documents": [{"text": "d"}]}, "messages"),
        ({"messages": WITH_TOOL, "chat_template_kwargs": {"x": 1}}, "messages"),
    ],
)
def test_there_and_back(row: dict[str, Any], to: str) -> None:
    made, lost = one(row, to)
    assert lost == []
    assert one(made, "messages") == (row, [])


@pytest.mark.parametrize(
    ("to", "row"),
    [
        ("prompt-completion", {"prompt": "q", "completion": "a"}),
        ("prompt-completion", {"prompt": MESSAGES, "completion": MESSAGES[1:], "tools": TOOLS}),
        ("preference", {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 0.5, "p": 0.9}),
        ("preference", {"prompt": MESSAGES[:1], "chosen": MESSAGES[1:], "rejected": [{**MESSAGES[1], "content": "b"}]}),
        ("unpaired", {"prompt": "q", "completion": "a", "label": False}),
        ("ranked", {"prompt": "q", "completions": ["a", "b"], "scores": [2.0, -1.0]}),
        ("stepwise", {"prompt": "q", "completions": ["a", "b", "c"], "labels": [1, 0, -1]}),
        ("hh", {"chosen": "\n\nHuman:q \n\nAssistant: a", "rejected": "\n\nHuman:q \n\nAssistant: b"}),
        ("messages", {"messages": [MESSAGES[0], {**MESSAGES[1], "train": False}, *MESSAGES]}),
    ],
)
def test_canonical_rows_stay_what_they_are(to: str, row: dict[str, Any]) -> None:
    assert one(row, to) == (row, [])


def test_hh_both_ways_keeps_the_raw_prefix() -> None:
    prefix = "\n\nHuman: hi\n\nAssistant: yes?\n\nHuman:  two spaces\n\nAssistant:"
    row = {"chosen": f"{prefix} good", "rejected": f"{prefix} bad"}
    pair, lost = one(row, "preference")
    assert (pair, lost) == ({"prompt": prefix, "chosen": " good", "rejected": " bad"}, [])
    assert one(pair, "hh") == (row, [])
    talk, _ = one(row, "preference", form="messages")
    assert [m["content"] for m in talk["prompt"]] == ["hi", "yes?", " two spaces"]
    assert one(talk, "hh") == (row, [])


def test_what_is_lost_has_a_name() -> None:
    full = {"messages": WITH_TOOL, "tools": TOOLS, "documents": [{"text": "d"}], "id": 7}
    assert one(full, "sharegpt")[1] == ["column id", "documents"]
    turns = [*MESSAGES, MESSAGES[0], {**MESSAGES[1], "name": "x", "weight": 2}]
    assert one({"messages": turns, "tools": TOOLS}, "alpaca")[1] == ["name", "tools", "weight"]
    assert one({"messages": turns}, "prompt-completion")[1] == ["earlier answers being learned"]
    assert one({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1}, "messages")[1] == ["margin", "rejected"]
    rows, report = convert_rows([{"prompt": "q", "chosen": "a", "rejected": "b", "p": 0.7}] * 3, "unpaired")
    assert (len(rows), report.lost) == (6, {"p": 3})


def test_what_cannot_be_said_is_an_error() -> None:
    for row, to, reason in [
        ({"messages": WITH_TOOL}, "alpaca", "one after the other"),
        ({"messages": [MESSAGES[0], *MESSAGES]}, "sharegpt", "follow each other"),
        ({"prompt": "q", "completion": "a", "label": 0}, "messages", "nothing to imitate"),
        ({"prompt": "q", "chosen": "a\n\nHuman: x", "rejected": "b"}, "hh", "the text that parts turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "sharegpt", "a part of type"),
    ]:
        with pytest.raises(DataError, match=reason) as error:
            convert_rows([row], to)
        assert error.value.where == "row:1"
    with pytest.raises(DataError, match="more than texts"):
        convert_rows([{"messages": WITH_TOOL}], "prompt-completion", form="text")


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    assert set(writable_formats()) < set(readable_formats())
    row = {"prompt": "q", "completion": "a"}
    wrong = [{"to": "sharegtp"}, {"to": "alpaca", "format": "alpaka"}, {"to": "alpaca", "columns": {"promt": "q"}}]
    for options in wrong:
        with pytest.raises(UsageError):
            convert_rows([row], **options)  # type: ignore[arg-type]
    path = tmp_path / "rows.jsonl"
    path.write_text("{}")
    with pytest.raises(UsageError, match="is a file"):
        convert_rows([path], "alpaca")  # type: ignore[list-item]


def test_files(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"q": "one", "a": "1"}\n{"q": "two"}\n')
    output = tmp_path / "out.jsonl.gz"
    done: list[int] = []
    report = convert(
        data,
        "messages",
        output,
        columns={"prompt": "q", "completion": "a"},
        on_bad_row="skip",
        progress=lambda rows, _: done.append(rows),
    )
    assert (report.rows, report.written, done[-1]) == (2, 1, 2)
    assert report.bad['no column "a"'].examples == [f"{data}:2"]
    assert report.format == "prompt-completion (completion=a prompt=q)"
    assert json.loads(gzip.decompress(output.read_bytes()))["messages"][0] == {"role": "user", "content": "one"}
    with pytest.raises(ResourceError, match="there already"):
        convert(data, "messages", output)
    rows = tmp_path / "rows_out.jsonl"
    assert convert([{"question": "q", "answer": "a"}], "messages", rows).written == 1
    assert json.loads(rows.read_text()) == {"messages": MESSAGES}
    with pytest.raises(ResourceError):
        convert([{"question": "q", "answer": "a"}], "messages", rows)


def test_a_row_of_several_examples_is_trained_on_whole(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    instances = [{"input": "x", "output": "one"}, {"input": "", "output": "two"}]
    rows = [{"instruction": "Do.", "instances": instances}, {"instruction": "Go.", "instances": instances[:1]}]
    prepared = prepare_sft(rows, tokenizer, SFTConfig(), tmp_path / "prepared")
    assert (prepared.report["rows"], prepared.report["used"], len(prepared)) == (2, 2, 3)
    seen = preview(rows, tokenizer, SFTConfig())
    assert [row.row for row in seen.rows] == [0, 0, 1]
    assert seen.report["tokens"] == prepared.report["tokens"]


def test_raw_text_needs_no_template(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    for number, row in enumerate([{"text": "ab"}, {"inputs": "a", "targets": "b"}]):
        for template in (True, False):
            config = SFTConfig(apply_chat_template=template)
            seen = preview([row], tokenizer, config).rows[0]
            text = "".join(piece.text for piece in seen.pieces)
            scored = "".join(piece.text for piece in seen.pieces if piece.scored)
            if number == 0:  # the very first token has nothing before it
                assert text.startswith("ab")
                assert "<|im_start|>" not in text
            elif not template:
                assert text.startswith("a b")
                assert scored.startswith("b")


def test_feedback_is_no_example_to_train_on(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    with pytest.raises(DataError, match="the rows hold preference data") as error:
        prepare_sft(rows, tokenizer, SFTConfig(on_bad_row="skip"), tmp_path / "prepared")
    assert error.value.fix is not None
    assert "alignite convert --to messages" in error.value.fix
    made, _ = convert_rows(rows, "messages")
    assert prepare_sft(made, tokenizer, SFTConfig(), tmp_path / "prepared").report["used"] == 1


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Sort.", "input": "b a", "output": "a b"},
        {"instruction": "Sort.", "input": "", "output": "-"},
        {"instruction": "Sort.\n\nb a", "input": "", "output": "a b"},
    ],
)
def test_an_instruction_and_its_input_stay_apart(row: dict[str, Any]) -> None:
    assert one(row, "alpaca") == (row, [])
    instances = {"instruction": row["instruction"], "instances": [{"input": row["input"], "output": row["output"]}]}
    assert one(instances, "alpaca") == (row, [])


def test_weights_and_large_scores_are_kept_or_counted() -> None:
    turns = [{"from": "human", "value": "q", "weight": 0}, {"from": "gpt", "value": "a"}]
    made, lost = one({"conversations": turns}, "messages")
    assert (made["messages"][0], lost) == ({"role": "user", "content": "q", "weight": 0.0}, [])
    assert one({"conversations": turns}, "alpaca")[1] == ["weight"]
    ranked = {"prompt": "q", "completions": ["a", "b"], "scores": [9007199254740993, 1]}
    assert one(ranked, "ranked")[1] == ["digits of a score above 2^53"]
    assert one({**ranked, "scores": [9007199254740992, 1]}, "ranked")[1] == []


@pytest.mark.parametrize(
    ("row", "to", "targets"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, "preference", "unpaired"),
        ({"prompt": "q", "completions": ["a"], "labels": [True]}, "messages", "stepwise"),
        ({"text": "t"}, "prompt-completion", "prepare it as it is"),
    ],
)
def test_a_format_that_cannot_become_another_is_said_to_be_so(row: dict[str, Any], to: str, targets: str) -> None:
    for on_bad_row in ("error", "skip"):
        with pytest.raises(UsageError, match=f"data cannot become {to}") as error:
            convert_rows([row], to, on_bad_row=on_bad_row)  # type: ignore[arg-type]
        assert targets in str(error.value)
        assert "on_bad_row" not in str(error.value)
