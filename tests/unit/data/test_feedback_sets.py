"""Pairs, rankings, labels and rated steps as prepared sets: replies share their prompt, none loses a part."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignite.config import PrepareConfig, SFTConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare, prepare_sft, preview
from alignite.data.prepared import ROLES
from alignite.errors import DataError

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def made(rows: list[Row], tokenizer: ChatTokenizer, folder: Path, **options: Any) -> PreparedSet:
    return prepare(rows, tokenizer, PrepareConfig(**options), folder)


def parts(prepared: PreparedSet, window: int) -> list[tuple[str, list[int], list[int], list[int], int]]:
    """(role, ids, labels, positions, parent) of each segment of a window."""
    ids, labels, positions, segments = prepared.arrays([window])
    roles = prepared.origins([window]).roles.tolist()
    found = []
    for role, (start, length, parent) in zip(roles, segments.tolist(), strict=True):
        part = slice(start, start + length)
        found.append((ROLES[role], ids[part].tolist(), labels[part].tolist(), positions[part].tolist(), parent))
    return found


def test_a_pair_is_a_prompt_and_two_replies(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    prepared = made([{"prompt": "q", "chosen": "yes", "rejected": "no", "margin": 0.5}], tokenizer, tmp_path / "p")
    prompt, chosen, rejected = parts(prepared, 0)
    assert [part[0] for part in (prompt, chosen, rejected)] == ["prompt", "chosen", "rejected"]
    asked = tokenizer.render([{"role": "user", "content": "q"}], add_generation_prompt=True)
    assert tokenizer.decode(prompt[1]) == asked
    assert tokenizer.decode(chosen[1]) == "yes<|im_end|>"
    assert tokenizer.decode(rejected[1]) == "no<|im_end|>"
    # The prompt's last token predicts a reply's first, so that one is scored; nothing of the prompt is.
    assert set(prompt[2]) == {-100}
    assert chosen[2] == chosen[1]
    assert rejected[2] == rejected[1]
    length = len(prompt[1])
    assert prompt[3] == list(range(length))
    assert chosen[3] == list(range(length, length + len(chosen[1])))
    assert rejected[3] == list(range(length, length + len(rejected[1])))
    assert (prompt[4], chosen[4], rejected[4]) == (-1, 0, 0)
    scores = prepared.origins([0]).scores.tolist()
    assert math.isnan(scores[0])
    assert scores[1] == 0.5


def test_records_are_packed_whole_and_keep_their_parents(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "y" * (n % 9 + 1), "rejected": "n" * (n % 5 + 1)} for n in range(60)]
    single = made(rows, tokenizer, tmp_path / "none")
    packed = made(rows, tokenizer, tmp_path / "bfd", packing="bfd", max_length=256)
    assert len(packed) < len(single)
    found = []
    for window in range(len(packed)):
        segments = parts(packed, window)
        assert packed.origins([window]).records.tolist() == [n // 3 for n in range(len(segments))]
        for at in range(0, len(segments), 3):
            prompt, *replies = segments[at : at + 3]
            assert all(reply[4] == at for reply in replies)
            found.append([(part[0], part[1], part[2], part[3]) for part in (prompt, *replies)])
    expected = [[(part[0], part[1], part[2], part[3]) for part in parts(single, n)] for n in range(len(single))]
    assert sorted(found) == sorted(expected)


def test_old_turns_leave_the_prompt_and_no_reply_is_cut(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    turns = [{"role": "user" if n % 2 == 0 else "assistant", "content": f"turn {n} " + "x" * 30} for n in range(5)]
    rows = [
        {"prompt": turns, "chosen": "good", "rejected": "bad"},
        {"prompt": "q", "chosen": "y" * 300, "rejected": "n"},
        {"prompt": "q", "chosen": "same", "rejected": "same"},
        {"prompt": "q", "chosen": "fine", "rejected": " "},
    ]
    prepared = made(rows, tokenizer, tmp_path / "p", max_length=160)
    text = tokenizer.decode(parts(prepared, 0)[0][1])
    assert "turn 4" in text
    assert "turn 0" not in text
    report = prepared.report
    assert report["truncated"]["old turns of the prompt left out"]["count"] == 1
    assert {reason: entry["count"] for reason, entry in report["dropped"].items()} == {
        "longer than max_length with its last turn alone": 1,
        "chosen and rejected are the same": 1,
        "an empty reply": 1,
    }


def test_rankings_and_labels_carry_their_scores(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    ranked = {"prompt": "q", "completions": ["a", "b", "c"], "scores": [0.1, 3, -2]}
    prepared = made([ranked], tokenizer, tmp_path / "ranked")
    assert [part[0] for part in parts(prepared, 0)] == ["prompt", "reply", "reply", "reply"]
    assert prepared.origins([0]).scores[1:].tolist() == pytest.approx([0.1, 3, -2])
    rows = [{"prompt": "q", "completion": "a", "label": True}, {"prompt": "q", "completion": "b", "label": False}]
    prepared = made(rows, tokenizer, tmp_path / "unpaired")
    assert [prepared.origins([n]).scores[1] for n in (0, 1)] == [1, 0]


def test_a_step_is_rated_at_the_token_with_its_last_character(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    row = {"prompt": "2+2*3?", "completions": ["2*3 is 6", "2+6 is 9", "so 9"], "labels": [1, -1, 0]}
    prepared = made([row], tokenizer, tmp_path / "p")
    ((role, ids, labels, _, parent),) = parts(prepared, 0)
    assert (role, parent) == ("steps", -1)
    rated = [n for n, label in enumerate(labels) if label != -100]
    assert [labels[n] for n in rated] == [1, -1, 0]
    ends = [tokenizer.decode(ids[: n + 1]) for n in rated]
    for end, step in zip(ends, row["completions"], strict=True):
        assert end.endswith(step)


def test_sft_refuses_feedback_and_a_preview_shows_it(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "yes", "rejected": "no"}]
    with pytest.raises(DataError, match="preference data") as error:
        prepare_sft(rows, tokenizer, SFTConfig(), tmp_path / "p")
    assert "convert --to messages" in str(error.value)
    seen = preview(rows, tokenizer, SFTConfig())
    assert [row.place.rpartition(" ")[2] for row in seen.rows] == ["(chosen)", "(rejected)"]
    assert seen.report["tokens"] == made(rows, tokenizer, tmp_path / "all").report["tokens"]


def test_duplicates_filters_and_test_data_leave_with_a_reason(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    words = "the quick brown fox jumps over the lazy dog while seven wizards watch from a nearby hill"
    (tmp_path / "eval.jsonl").write_text('{"question": "' + words + '"}\n')
    rows: list[Row] = [
        {"prompt": f"question {n} about the number {n * n}", "completion": f"answer {n}"} for n in range(40)
    ]
    rows += [rows[3], {"prompt": "x", "completion": f"Well, {words}, they say."}, {"prompt": "?", "completion": "!"}]
    options: dict[str, Any] = {"dedup": "exact", "decontaminate": [str(tmp_path / "eval.jsonl")], "min_chars": 5}
    report = made(rows, tokenizer, tmp_path / "p", **options).report
    counts = {reason: entry["count"] for reason, entry in report["dropped"].items()}
    assert sum(counts.values()) == 3
    assert counts["exact duplicate"] == 1
    assert counts[f"overlaps with {tmp_path / 'eval.jsonl'}"] == 1
    assert (report["rows"], report["used"]) == (43, 40)
    assert report["dropped"]["exact duplicate"]["examples"] == ["row:41 (like row:4)"]
    near = made([*rows[:2], {**rows[1], "completion": "answer 1."}], tokenizer, tmp_path / "near", dedup="minhash")
    assert near.report["used"] == 2


def test_a_split_is_by_content_and_whole(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    from alignite.data import prepare_split

    rows = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(300)]
    config = PrepareConfig(split_share=0.2)
    train, validation = prepare_split(rows, tokenizer, config, tmp_path / "split")
    sides = [set(part.origins(np.arange(len(part))).row_ids.tolist()) for part in (train, validation)]
    assert sides[0] | sides[1] == set(range(300))
    assert not sides[0] & sides[1]
    assert 30 < len(sides[1]) < 90
    assert train.report["held_out"] == len(validation)
    more, _ = prepare_split([*rows, *rows[:0], {"prompt": "new", "completion": "n"}], tokenizer, config, tmp_path / "m")
    assert sides[0] <= set(more.origins(np.arange(len(more))).row_ids.tolist())


def test_long_rows_are_split_when_asked(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a" * n} for n in (5, 200, 40)]
    whole = made(rows, tokenizer, tmp_path / "none")
    expected = np.concatenate([whole.arrays([n])[0] for n in range(3)])
    for packing in ("bfd_split", "wrapped"):
        prepared = made(rows, tokenizer, tmp_path / packing, packing=packing, max_length=64)
        windows = np.arange(len(prepared))
        assert prepared.window_tokens(windows).max() <= 64
        ids, labels, positions, segments = prepared.arrays(windows)
        assert sorted(ids.tolist()) == sorted(expected.tolist())
        assert all(labels[start] == -100 and positions[start] == 0 for start in segments[:, 0])
        lost = sum(label != -100 for n in range(3) for label in whole.arrays([n])[1]) - sum(labels != -100)
        assert prepared.report["lost_labels"] == lost > 0
        # Wrapping tears whatever lies across a window's end.
        torn = 1 if packing == "bfd_split" else 2
        assert prepared.report["truncated"]["split into pieces"]["count"] == torn
    assert np.array_equal(ids, expected)  # wrapped keeps the order


@pytest.mark.parametrize("row", [
    {"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "completions": ["a", "b"], "scores": [1, 0]}
])  # fmt: skip
def test_a_records_weight_comes_with_its_batch(row: Row, tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [row | {"weight": weight} for weight in (0.5, "2", 1, None, 0, -1, "much", 1e300)] + [row]
    prepared = made(rows, tokenizer, tmp_path / "set")
    batch = prepared.feedback_batch(np.arange(5))
    assert batch.record_weights is not None
    assert batch.record_weights.tolist() == [0.5, 2, 1, 1, 1]
    assert batch.to("cpu").record_weights is batch.record_weights
    assert {reason: entry["examples"] for reason, entry in prepared.report["dropped"].items()} == {
        "a weight of 0": ["row:5"],
        'column "weight" is below 0': ["row:6"],
        'weight is "much", not a number': ["row:7"],
        "a number that float32 cannot hold": ["row:8"],
    }
    assert prepared.feedback_batch([2, 3, 4]).record_weights is None
    packed = made(rows[:4], tokenizer, tmp_path / "packed", packing="bfd", max_length=400)
    order = packed.origins([0]).row_ids[packed.feedback_batch([0]).replies][::2].tolist()
    weights = packed.feedback_batch([0]).record_weights
    assert weights is not None
    assert weights.tolist() == [[0.5, 2, 1, 1][row] for row in order]
