"""PRM800K's odd rows (spec R8): what the walk takes, and a count for everything that it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignite.config import PrepareConfig, PreviewConfig
from alignite.data import ChatTokenizer, prepare, preview

Row = dict[str, Any]


def said(text: str | None, rating: Any = 1) -> Row:
    return {"text": text, "rating": rating, "flagged": False}


def step(*completions: Row, chosen: Any = 0, human: Any = None) -> Row:
    return {"completions": list(completions), "human_completion": human, "chosen_completion": chosen}


def row(*steps: Any, finish: str = "solution") -> Row:
    label = {"steps": list(steps), "total_time": 1, "finish_reason": finish}
    return {"labeler": "x", "question": {"problem": "1+1?"}, "label": label}


GOOD = row(step(said("A1."), said("A2.", -1)), step(said("B1.", -1), said("B2.", 0), said("B3."), chosen=2))
# By what is odd: the row, its solutions as texts with ratings, and what the report counts it as.
ODD: dict[str, tuple[Row, list[list[tuple[str, int]]], dict[str, dict[str, int]]]] = {
    "nothing": (
        GOOD,
        [
            [("A2.", -1)],
            [("A1.", 1), ("B1.", -1)],
            [("B2.", 0)],
            [("B3.", 1)],
        ],
        {},
    ),
    "an alternative without a rating": (
        row(step(said("A1."), said("A2.", None), said("A3.", None)), step(said("B1."))),
        [[("A1.", 1), ("B1.", 1)]],
        {"noticed": {"an alternative step without a rating, which is left out": 1}},
    ),
    "a chosen step without a rating": (
        row(step(said("A1.", None)), step(said("B1.", -1))),
        [[("B1.", -1)]],
        {"noticed": {"a chosen step without a rating, which only leads on": 1}},
    ),
    "a human step, and one beside a chosen one": (
        row(step(said("A1.", -1), chosen=None, human=said("H.", None)), step(said("B1."), human=said("H2.", None))),
        [[("A1.", -1)], [("B1.", 1)]],
        {"noticed": {"a human step beside a chosen one, which is left out": 1}},
    ),
    "no completions but a human's": (
        row(step(said("A1.")), {"completions": None, "human_completion": "H.", "chosen_completion": None}),
        [[("A1.", 1)]],
        {},
    ),
    "steps behind a wrong one": (
        row(step(said("A1.", -1)), step(said("B1."))),
        [[("A1.", -1)]],
        {"noticed": {"steps behind a wrong one, which are left out": 1}},
    ),
    "steps behind one that none was gone on from": (
        row(step(said("A1."), said("A2.", 0), chosen=None), step(said("B1."))),
        [[("A1.", 1)], [("A2.", 0)]],
        {"noticed": {"steps behind one that none was gone on from, which are left out": 1}},
    ),
    "it ends where none was chosen": (
        row(step(said("A1.", -1), said("A2.", 0), chosen=None), finish="found_error"),
        [[("A1.", -1)], [("A2.", 0)]],
        {},
    ),
    "all neutral": (
        row(step(said("A1.", 0))),
        [[("A1.", 0)]],
        {"noticed": {"a solution whose rated steps are all neutral": 1}},
    ),
    "empty alternatives": (
        row(step(said("A1."), said(" ", -1), said("", 0))),
        [[("A1.", 1)]],
        {"dropped_records": {"an empty step": 2}},
    ),
    "no rating at all": (row(step(said("A1.", None))), [], {"dropped": {"no step is rated": 1}}),
    "no step": (row(), [], {"dropped": {'column "label.steps" is an empty list': 1}}),
    "a bad problem": (row(step(said("A1.")), finish="bad_problem"), [], {"dropped": {"": 1}}),
    "a rating that is none": (row(step(said("A1.", 2))), [], {"dropped": {"a rating is 2, not -1, 0 or 1": 1}}),
    "a rating as text": (row(step(said("A1.", "1"))), [], {"dropped": {"": 1}}),
    "chosen beyond the completions": (row(step(said("A1."), chosen=1)), [], {"dropped": {"": 1}}),
    "chosen below 0": (row(step(said("A1."), chosen=-1)), [], {"dropped": {"": 1}}),
    "a text of null": (row(step(said(None))), [], {"dropped": {"": 1}}),
    "completions of another type": (
        row({"completions": "A1.", "chosen_completion": None, "human_completion": None}),
        [],
        {"dropped": {"completions is a string, not a list": 1}},
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_every_odd_row_is_walked_right_and_counted(what: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    given, solutions, counted = ODD[what]
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    rows = [given] if what == "nothing" else [given, GOOD]
    prepared = prepare(rows, tokenizer, PrepareConfig(), tmp_path / "set")
    found = []
    for window in range(len(prepared)):
        if prepared.origins([window]).row_ids[0] != 0:
            continue
        ids, labels, _, _ = prepared.arrays([window])
        ends = [at for at, label in enumerate(labels.tolist()) if label != -100]
        text = [tokenizer.decode(ids[: end + 1].tolist()) for end in ends]
        last = [whole.rsplit("\n", 1)[-1] for whole in text]
        found.append(list(zip(last, (int(labels[end]) for end in ends), strict=True)))
    assert sorted(found) == sorted(solutions)
    report = prepared.report
    for part in ("noticed", "dropped", "dropped_records"):
        wanted = counted.get(part, {})
        entries = report[part]
        assert sorted(entry["count"] for entry in entries.values()) == sorted(wanted.values()), (part, entries)
        assert all(entry["examples"] == ["row:1"] for entry in entries.values())
        assert all(any(reason in entry for entry in entries) for reason in wanted), (part, entries)
        assert preview(rows, tokenizer, PreviewConfig()).report[part] == entries
