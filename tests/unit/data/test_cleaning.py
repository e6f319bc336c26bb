"""Cleaning of texts that Python holds."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from alignite.config.clean import CleanOptions
from alignite.data.cleaning import clean, decontaminate, deduplicate
from alignite.errors import ConfigError, DataError, ResourceError, UsageError
from alignite.native.clean import TextCleaner


def words(start: int, count: int) -> str:
    return " ".join(f"word{n}" for n in range(start, start + count))


ROWS = [words(0, 60), words(100, 60), words(0, 60), words(0, 59) + " other", "", words(100, 60).upper(), ""]
EXACT = [0, 1, 0, 3, 4, 5, 4]
FOLDED = [0, 1, 0, 3, 4, 1, 4]
NEAR = [0, 1, 0, 0, 4, 1, 4]


@pytest.mark.parametrize(
    ("method", "fold", "groups"), [("exact", False, EXACT), ("exact", True, FOLDED), ("minhash", False, NEAR)]
)
def test_lists_rows_and_arrow_columns_give_the_same_groups(method: str, fold: bool, groups: list[int]) -> None:
    column = pa.chunked_array([pa.array(["skipped", *ROWS[:3]])[1:], pa.array([], pa.string()), pa.array(ROWS[3:])])
    for rows, text in [
        (ROWS, None),
        (tuple(ROWS), None),
        ([{"t": row} for row in ROWS], "t"),
        ([[row] for row in ROWS], lambda row: row[0]),
        (pa.array(ROWS), None),
        (pa.array(ROWS, pa.large_string()), None),
        (pa.array([row or None for row in ROWS]), None),
        (column, None),
    ]:
        kept, found = deduplicate(rows, method, fold=fold, text=text)
        assert found.tolist() == groups
        assert kept.tolist() == [row for row, first in enumerate(groups) if row == first]
        assert kept.dtype == found.dtype == np.int64


def test_no_rows_are_no_rows() -> None:
    for rows in ([], pa.array([], pa.string()), pa.chunked_array([], pa.string())):
        kept, groups = deduplicate(rows, "minhash")
        assert len(kept) == len(groups) == 0


def test_more_rows_than_a_chunk_are_counted_through() -> None:
    rows = [f"row {n % 15_000}" for n in range(20_000)]
    expected = np.arange(20_000) % 15_000
    for method in ("exact", "minhash"):
        assert (deduplicate(rows, method, num_threads=2)[1] == expected).all()
        assert (deduplicate(pa.array(rows), method, num_threads=1)[1] == expected).all()


def test_rows_that_overlap_with_an_evaluation_set_are_named(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(
        '{"q": "short one"}\n{"q": "' + words(0, 20) + '", "a": "' + words(50, 20) + '"}\n'
    )
    rows = ["before " + words(3, 13).title() + " after", words(3, 12), words(52, 14), "short one"]
    found = decontaminate(rows, tmp_path / "eval.jsonl")
    place = f"{tmp_path}/eval.jsonl:2"
    assert found.dropped == {row: (f"overlaps with {tmp_path}/eval.jsonl", place) for row in (0, 2)}
    assert found.kept.tolist() == [1, 3]
    assert found.counts == {f"overlaps with {tmp_path}/eval.jsonl": 2}
    assert decontaminate(rows, [tmp_path / "eval.jsonl"], columns=["q"]).kept.tolist() == [1, 2, 3]
    named = decontaminate(rows, {"mine": [words(0, 20), "short one", words(3, 12)]})
    assert named.dropped == {0: ("overlaps with mine", "mine:1"), 1: ("overlaps with mine", "mine:3")}
    assert decontaminate(rows, {"mine": [words(0, 20)]}, share=0.5).kept.tolist() == [0, 1, 2, 3]


def test_a_row_has_one_reason_and_the_counts_add_up() -> None:
    rows = ["a", "a b c", "a b c", "x\nx\nx\ny", "? ! ? d e", "d e f"]
    options = CleanOptions(dedup="exact", min_words=2, max_symbols=0.5, max_repetition=1.0)
    found = clean(rows, options)
    assert found.counts == {
        "shorter than min_words": 1,
        "exact duplicate": 1,
        "repetition: repeated lines": 1,
        "more symbols than max_symbols": 1,
    }
    assert found.kept.tolist() == [1, 5]
    assert sorted([*found.kept, *found.dropped]) == list(range(len(rows)))


def test_the_split_is_by_content_and_stays_when_rows_are_added() -> None:
    rows = [f"row {n}" for n in range(4000)]
    options = CleanOptions(dedup="exact", split_share=0.1)
    held = {rows[row] for row in clean(rows, options).held_out}
    assert 300 < len(held) < 500
    more = [f"new {n}" for n in range(500)] + rows[::-1] + rows
    found = clean(more, options)
    assert {more[row] for row in found.held_out if more[row].startswith("row")} == held
    assert set(found.held_out) <= set(found.kept)
    assert {rows[row] for row in clean(rows, CleanOptions(split_share=0.1, split_seed=1)).held_out} != held


def test_the_options_are_those_that_rust_knows() -> None:
    values = CleanOptions().to_dict()
    assert list(values) == [item.name for item in fields(CleanOptions)]
    TextCleaner(json.dumps(values), "/tmp", 1)
    with pytest.raises(UsageError, match="options"):
        TextCleaner(json.dumps(values | {"unknown": 1}), "/tmp", 1)
    with pytest.raises(UsageError) as error:
        TextCleaner(json.dumps({"dedup_threshold": 2}), "/tmp", 1)
    assert error.value.where == "dedup_threshold"


@pytest.mark.parametrize(
    "wrong",
    [
        {"dedup": "fuzzy"},
        {"dedup_threshold": 0},
        {"dedup_ngram": 0},
        {"decontaminate_ngram": 101},
        {"split_share": 1},
        {"split_seed": -1},
        {"max_symbols": -1},
        {"min_chars": -1},
        {"min_words": 3, "max_words": 2},
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        clean(["a"], CleanOptions(**wrong))


def test_rows_without_text_are_named() -> None:
    for rows, text, place in [
        (["a", None], None, "row 1"),
        ([{"t": "a"}, {"u": "b"}], "t", "row 1"),
        ([{}], None, "row 0"),
    ]:
        with pytest.raises(DataError) as error:
            deduplicate(rows, text=text)
        assert error.value.where == place
    with pytest.raises(DataError, match="no text"):
        deduplicate(["a", "\ud800"])
    for column in (pa.array([b"\xff"]), pa.array([["a"]])):
        with pytest.raises(DataError, match="no text"):
            deduplicate(column)
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        decontaminate(["a"], "missing.jsonl")


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="near duplicates"):
        deduplicate(ROWS, "minhash", folder=tmp_path / "file")
    deduplicate(ROWS, "minhash", folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_evaluation_sets_are_found_as_data_are(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"q": words(0, 20)}) + "\n")
    for given in (folder, str(folder), str(folder / "*.jsonl")):
        assert decontaminate([words(0, 30), words(50, 80)], given).kept.tolist() == [1]
    (folder / "b.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        decontaminate(["a"], folder)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"dedup_threshold": 0.9}, "dedup is none"),
        ({"dedup_fold": True, "dedup": "minhash"}, "dedup is minhash"),
        ({"dedup_ngram": 3, "dedup": "exact"}, "dedup is exact"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=f"has no effect: {why}"):
        CleanOptions(**options).validate()
