"""Nothing vanishes without a word: late columns, what a template leaves out, tokens across a border, empty replies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from alignite.config import PrepareConfig, SFTConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare, prepare_sft, preview
from alignite.errors import AligniteError, DataError

Row = dict[str, Any]
QWEN3 = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def made(rows: Sequence[Row], tokenizer: ChatTokenizer, tmp_path: Path, **options: Any) -> PreparedSet:
    path = jsonl(tmp_path / "rows.jsonl", rows)
    config = SFTConfig(**{"max_length": 500, "on_bad_row": "skip"} | options)
    prepared = prepare_sft(path, tokenizer, config, tmp_path / "set")
    seen = preview(path, tokenizer, config)
    for name in ("noticed", "dropped", "truncated", "lost_labels", "unused_columns", "format"):
        assert seen.report[name] == prepared.report[name], name
    return prepared


def left(prepared: PreparedSet) -> list[Row]:
    return [json.loads(line) for line in (prepared.folder / "quarantine.jsonl").read_text().splitlines()]


def spoken(prepared: PreparedSet, tokenizer: ChatTokenizer) -> list[str]:
    arrays = [prepared.arrays([window])[1].tolist() for window in range(len(prepared))]
    return [tokenizer.decode([label for label in labels if label != -100]) for labels in arrays]


PLAIN = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize("first", [PLAIN, {**PLAIN, "label": None}])
def test_a_bad_reply_behind_the_first_rows_is_not_trained_on(
    first: Row, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    prepared = made([*[first] * 150, {**PLAIN, "label": False}, {**PLAIN, "label": True}, PLAIN], tokenizer, tmp_path)
    report = prepared.report
    assert (report["format"], report["used"], report["bad"]) == ("prompt-completion", 151, 2)
    ((reason, rows),) = report["dropped"].items()
    assert "label" in reason
    assert "unpaired" in reason
    assert rows["examples"] == [f"{tmp_path}/rows.jsonl:{line}" for line in (151, 152)]
    rank = {"prompt": "q", "completion": "a", "completions": ["a", "b"], "scores": [1, 2]}
    assert made([*[PLAIN] * 100, rank], tokenizer, tmp_path / "rank").report["bad"] == 1


def test_columns_are_told_of_all_rows_and_named_formats_take_what_they_are_told(
    tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    late = [*[PLAIN] * 150, {**PLAIN, "system": "s", "id": 3}, {**PLAIN, "label": "physics"}]
    report = made(late, tokenizer, tmp_path).report
    assert (report["used"], report["unused_columns"]) == (152, ["id", "label", "system"])
    named = [*[PLAIN] * 150, {**PLAIN, "label": False}]
    report = made(named, tokenizer, tmp_path / "named", format="prompt-completion").report
    assert (report["used"], report["unused_columns"]) == (151, ["label"])
    alpaca = {"instruction": "q", "output": "a"}
    rows = [*[alpaca] * 150, {**alpaca, "system": "Be brief.", "history": [["x", "y"]]}]
    prepared = made(rows, tokenizer, tmp_path / "alpaca")
    assert prepared.report["unused_columns"] == []
    assert spoken(prepared, tokenizer)[-1].startswith("y")


def test_named_columns_are_checked_and_the_others_told(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"q": "x", "a": "y", "system": "s"}] * 3
    options = {"prompt_column": "q", "completion_column": "a"}
    report = made(rows, tokenizer, tmp_path, **options).report
    assert report["unused_columns"] == ["system"]
    twice = prepare_sft([tmp_path / "rows.jsonl"] * 2, tokenizer, SFTConfig(**options), tmp_path / "twice")
    assert twice.report["format"] == "prompt-completion (completion=a prompt=q)"
    with pytest.raises(DataError, match='no row has a column "w"') as error:
        made(rows, tokenizer, tmp_path / "wrong", **options | {"completion_column": "w"})
    assert "the columns are a, q, system" in str(error.value)


def test_what_a_template_does_not_write_is_told(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    def talk(**more: Any) -> Row:
        answer = {"role": "assistant", "content": "a"} | more.pop("answer", {})
        return {"messages": [{"role": "user", "content": "q"}, answer], **more}

    rows = [
        talk(),
        *[talk(answer={name: "because"}) for name in ("reasoning_content", "reasoning", "thinking")],
        talk(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        talk(documents=[{"title": "t", "text": "d"}]),
    ]
    noticed = made(rows, tokenizer, tmp_path).report["noticed"]
    file = f"{tmp_path}/rows.jsonl"
    assert noticed == {
        "reasoning is not written by this template": {"count": 3, "examples": [f"{file}:{n}" for n in (2, 3, 4)]},
        "tools are not written by this template": {"count": 1, "examples": [f"{file}:5"]},
        "documents are not written by this template": {"count": 1, "examples": [f"{file}:6"]},
    }
    qwen = replace(tokenizer, chat_template=QWEN3)
    noticed = made(rows, qwen, tmp_path / "qwen").report["noticed"]
    assert list(noticed) == ["documents are not written by this template"]


def test_the_generation_prompt_is_the_one_of_the_rows_own_variables(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    qwen = replace(tokenizer, chat_template=QWEN3)
    talk = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]}
    rows = [talk | {"chat_template_kwargs": {"enable_thinking": False}}, talk]
    end = "<|im_end|>"
    assert spoken(made(rows, qwen, tmp_path), tokenizer) == [f"x{end}", f"<think>\n\n</think>\n\nx{end}"]
    prefilled = made(rows, qwen, tmp_path / "prefill", train_on_think_prefill=True)
    assert spoken(prefilled, tokenizer) == [f"<think>\n\n</think>\n\nx{end}"] * 2


def test_tokens_that_span_a_border_are_counted() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate(["<eos>", *alphabet, "Ġ4"])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "4")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<eos>"])
    tokenizer = ChatTokenizer(Path("t"), made.to_str().encode(), None, {"eos_token": "<eos>"}, (0,), 0)
    rows = [{"prompt": "A: ", "completion": "4"}, {"prompt": "A: ", "completion": "42"}]
    rows.append({"prompt": "A:", "completion": " 4"})
    noticed = preview(rows, tokenizer, SFTConfig(apply_chat_template=False)).report["noticed"]
    assert noticed == {
        "a token spans prompt and completion": {"count": 2, "examples": ["row:1", "row:2"]},
        "nothing of the completion is scored but its end token": {"count": 1, "examples": ["row:1"]},
    }


def test_empty_replies_are_counted_and_dropped_where_there_is_no_other(
    tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    def talk(*turns: str) -> Row:
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]}

    prepared = made([talk("q", "a", "r", ""), talk("q", " \n"), talk("q", "a")], tokenizer, tmp_path)
    assert prepared.report["noticed"]["an empty reply"]["count"] == 1
    assert prepared.report["dropped"]["an empty reply"]["examples"] == [f"{tmp_path}/rows.jsonl:2"]
    raw = made([PLAIN, {"prompt": "q", "completion": ""}], tokenizer, tmp_path / "raw", apply_chat_template=False)
    assert raw.report["dropped"]["an empty reply"]["count"] == 1


def test_every_row_that_is_torn_is_counted(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"text": "word " * (n % 9 + 1)} for n in range(200)]
    prepared = made(rows, tokenizer, tmp_path, packing="wrapped", max_length=32)
    pieces: dict[int, int] = {}
    for row in prepared.origins(range(len(prepared))).row_ids.tolist():
        pieces[row] = pieces.get(row, 0) + 1
    assert prepared.report["truncated"]["split into pieces"]["count"] == sum(count > 1 for count in pieces.values())


def test_what_is_left_out_is_shown_with_its_row_and_its_like(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(PLAIN), "", json.dumps({"prompt": "x" * 600}), json.dumps(PLAIN), "{broken"]
    path.write_text("\n".join(lines))
    config = PrepareConfig(max_length=500, dedup="exact", format="prompt-completion")
    prepared = prepare(path, tokenizer, config, tmp_path / "set")
    short, again, broken = left(prepared)
    assert (short["where"], len(short["row"])) == (f"{path}:3", 400)
    assert again == {
        "where": f"{path}:4", "row_id": 2,
        "reason": "exact duplicate", "bad": False, "row": lines[3], "like": f"{path}:1",
    }  # fmt: skip
    assert (broken["row"], broken["where"]) == ("{broken", f"{path}:5")
    assert prepared.report["dropped"]["exact duplicate"]["examples"] == [f"{path}:4 (like {path}:1)"]


def test_nan_matters_only_where_it_is_read(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    nan, nested = [float("nan"), 1.0], [{"x": float("nan")}, {"x": 1.0}]
    table = pa.table({"prompt": ["q", "r"], "completion": ["a", "b"], "score": nan, "more": nested})
    pq.write_table(table, tmp_path / "a.parquet")
    report = prepare_sft(tmp_path / "a.parquet", tokenizer, SFTConfig(), tmp_path / "a").report
    assert (report["used"], report["unused_columns"]) == (2, ["more", "score"])
    table = pa.table({"prompt": ["q", "r"], "chosen": ["a", "b"], "rejected": ["c", "d"], "margin": nan})
    pq.write_table(table, tmp_path / "b.parquet")
    report = prepare(tmp_path / "b.parquet", tokenizer, PrepareConfig(max_length=99), tmp_path / "b").report
    assert report["used"] == 1
    assert list(report["dropped"]) == ["NaN and Infinity are no numbers (column margin)"]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", '{"prompt": "q", "completion": "a"}\n'.encode("utf-16"), "UTF-16"),
        ("a.jsonl", b'{"prompt": "q", "completion": "a"}\r{"prompt": "q", "completion": "a"}\r', "CR alone"),
        ("a.json", b'{\n  "prompt": "q",\n  "completion": "a"\n}\n', "several lines"),
        ("a.csv", b"prompt;completion\nq;a\n", "parted by ';'"),
        ("a.csv", b"prompt,completion\rq,a\r", "CR alone"),
        ("a.json", b'{"data": [{"prompt": "q", "completion": "a"}]}\n', "is a list of 1"),
        ("a.parquet", b"PAR0 and so on", "its name says Parquet"),
        ("a.csv", "prompt,completion\nq,é\n".encode("latin-1"), "save the file as UTF-8"),
        ("a.jsonl", b'{"chosen": "same", "rejected": "same", "prompt": "q"}\n', "alignite preview"),
        ("a.jsonl", b'{"prompt": "q", "completion": "' + b"x" * 5000 + b'"}\n' * 2, "no row is left"),
    ],
)
def test_errors_say_the_cause(name: str, content: bytes, what: str, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    config = PrepareConfig(max_length=10 if b"xxx" in content else 100, packing="none")
    if b"xxx" in content:
        config.max_length = 2
    with pytest.raises(AligniteError) as error:
        prepare(path, tokenizer, config, tmp_path / "set")
    assert what in str(error.value)
    assert "something that an assistant says" not in str(error.value)
