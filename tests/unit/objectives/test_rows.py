"""Rankings that are none, and markers in prompts of messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from alignite.errors import DataError
from alignite.objectives.coh import ChainOfHindsight
from alignite.objectives.hir import HindsightRelabel
from alignite.objectives.quark import quark_rows
from alignite.objectives.rows import with_marker

MAKERS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "coh": ChainOfHindsight(),
    "hir": HindsightRelabel(),
    "quark": lambda rows: quark_rows(rows, 1),
}
GOOD = {"prompt": "q", "completions": ["a", "b"], "scores": [1.0, 0.0]}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    ("scores", "what"),
    [
        ([], "2 replies and 0 scores"),
        ([1.0], "2 replies and 1 scores"),
        ([1.0, math.nan], "a score is nan"),
        ([None, 1.0], "a score is None"),
        (["1", 0.0], "a score is '1'"),
        ([math.inf, 0.0], "a score is inf"),
        ([0.0, -math.inf], "a score is -inf"),
        ([[1.0], 0.0], r"a score is \[1.0\]"),
    ],
)
def test_a_ranking_with_bad_scores_is_told_by_its_row(make: Callable[..., Any], scores: list[Any], what: str) -> None:
    with pytest.raises(DataError, match=what) as error:
        make([GOOD, {**GOOD, "scores": scores}])
    assert error.value.where == "row 2"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_ranking_of_no_replies_is_told(make: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="0 replies"):
        make([{"prompt": "q", "completions": [], "scores": []}])


def test_the_marker_begins_the_last_user_message() -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    assert [turn["content"] for turn in with_marker(turns, "k ")] == [
        "system",
        "user",
        "assistant",
        "k user",
        "assistant",
    ]
    with pytest.raises(DataError, match="no user message"):
        with_marker(turns[:1], "k")


def test_parts_of_a_message_are_one_text() -> None:
    parts = [{"type": "text", "text": "2 + "}, "2?"]
    prompt = [{"role": "user", "content": parts}]
    marked = [{"role": "user", "content": "k 2 + 2?"}]
    assert with_marker(prompt, "k ") == marked
    (row,) = HindsightRelabel(good="k", separator=" ")([{"prompt": prompt, "completions": ["4"], "scores": [1.0]}])
    assert row == {"prompt": marked, "completion": "4"}
    (row,) = ChainOfHindsight(good="k", forms=("p",))([{"prompt": prompt, "chosen": "4", "rejected": "5"}])
    assert row["messages"][0] == {"role": "user", "content": "2 + 2?\nk"}
    assert prompt[0]["content"] is parts
    with pytest.raises(DataError, match="not text"):
        with_marker([{"role": "user", "content": [{"type": "image"}]}], "k")
