from __future__ import annotations

import math

import numpy as np
import pytest

from alignite.errors import ConfigError, DataError, UsageError
from alignite.objectives.hir import HindsightRelabel, HIRObjective, contrast_rows
from alignite.types import PrepassObjective, RowMaker

RANKED = [{"prompt": f"q{n}", "completions": [f"a{n}", f"b{n}"], "scores": [1.0, 0.0]} for n in range(5)]


def refuse(error: DataError) -> None:
    raise error


def test_relabelled_rows_ask_for_what_was_done() -> None:
    rows = [{"prompt": "2+2?", "completions": ["4", "5"], "scores": [1.0, 0.0]}]
    assert HindsightRelabel(good="Right:", bad="Wrong:", separator=" ")(rows) == [
        {"prompt": "Right: 2+2?", "completion": "4"},
        {"prompt": "Wrong: 2+2?", "completion": "5"},
    ]


def test_contrast_rows_are_groups_in_order() -> None:
    rows = [{"prompt": f"p{n}", "completion": text} for n, text in enumerate(["a", "b", "a", "c"])]
    assert contrast_rows(rows, 3) == [
        {"prompt": "p0", "completions": ["a", "b", "c"], "scores": [1.0, 0.0, 0.0]},
        {"prompt": "p1", "completions": ["b", "a", "c"], "scores": [1.0, 0.0, 0.0]},
        {"prompt": "p2", "completions": ["a", "b", "c"], "scores": [1.0, 0.0, 0.0]},
        {"prompt": "p3", "completions": ["c", "a", "b"], "scores": [1.0, 0.0, 0.0]},
    ]
    assert [row["completions"] for row in contrast_rows(rows, 2)] == [["a", "b"], ["b", "a"], ["a", "c"], ["c", "a"]]


@pytest.mark.parametrize(("rows", "size"), [(4, 0), (4, 1), (1, 4)])
def test_a_group_of_one_instruction_is_refused(rows: int, size: int) -> None:
    with pytest.raises(UsageError, match="groups of"):
        contrast_rows([{"prompt": "p", "completion": "a"}] * rows, size)


def test_completions_of_messages_are_told_apart() -> None:
    first, second = ([{"role": "assistant", "content": text}] for text in "ab")
    rows = [{"prompt": "p", "completion": one} for one in (first, second, first)]
    assert [row["completions"] for row in contrast_rows(rows, 3)] == [[first, second], [second, first], [first, second]]


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="both"):
        HindsightRelabel(good="x", bad="x")
    with pytest.raises(ConfigError, match="threshold"):
        HindsightRelabel(threshold=math.nan)
    for option, value in (("group_size", 1), ("threshold", math.inf), ("contrast_weight", -1.0), ("bad", "")):
        with pytest.raises(ConfigError):
            HIRObjective(**{option: value, "good": ""})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3, 4, 9, 20])
def test_its_rows_are_those_of_the_two_steps(size: int) -> None:
    objective = HIRObjective(group_size=size)
    assert isinstance(objective, RowMaker)
    assert isinstance(objective, PrepassObjective)
    made = list(objective.rows(RANKED, refuse))
    assert made == contrast_rows(HindsightRelabel()(RANKED), size)
    assert len(made) == 10


@pytest.mark.parametrize(("rows", "size", "expected"), [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (5, 4, [5]), (3, 2, [3])])
def test_the_groups_of_its_rows(rows: int, size: int, expected: list[int]) -> None:
    lines = np.arange(1, rows + 1)
    _, sizes = np.unique(HIRObjective(group_size=size).groups(lines), return_counts=True)
    assert sizes.tolist() == expected
    kept = HIRObjective(group_size=size).groups(np.delete(lines, 1))
    assert np.unique(kept, return_counts=True)[1].tolist() == [expected[0] - 1, *expected[1:]]


def test_an_empty_reply_costs_its_own_instruction_alone() -> None:
    empty = [*RANKED[:2], {"prompt": "q", "completions": ["", " \n", "a"], "scores": [1.0, 0.0, 1.0]}, *RANKED[2:]]
    bad: list[DataError] = []
    made = list(HIRObjective().rows(empty, bad.append))
    assert len(made) == 11
    assert [error.what for error in bad] == ["an empty reply"] * 2
    assert all(text.strip() for row in made for text in row["completions"])
    said = [{"role": "assistant", "content": ""}]
    told = {"prompt": "q", "completions": [said, [{**said[0], "content": "a"}]], "scores": [1.0, 0.0]}
    assert len(list(HIRObjective().rows([told, *RANKED], bad.append))) == 11


def test_a_row_that_cannot_be_asked_differently_is_told() -> None:
    rows = [{**RANKED[0], "prompt": [{"role": "system", "content": "s"}]}, *RANKED]
    bad: list[DataError] = []
    assert len(list(HIRObjective().rows(rows, bad.append))) == 10
    assert [error.what for error in bad] == ["a prompt has no user message to put a marker in"]
    with pytest.raises(DataError):
        list(HIRObjective().rows(rows, refuse))
