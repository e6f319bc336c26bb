"""Process reward models: which token is read, PRM800K's walk, steps from outcomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare
from alignite.models.columns import compute_columns
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.scoring.process_reward import ProcessRewardModel, aggregate_steps, outcome_steps, split_steps
from alignite.types import IGNORE, ReplyRole


@pytest.fixture(scope="module")
def tokenizer(tiny_model_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_model_folder)


def samples(prepared: PreparedSet, tokenizer: ChatTokenizer) -> list[tuple[str, int]]:
    """The solution up to each rated token, and the rating."""
    found = []
    for window in range(len(prepared)):
        ids, labels, _, _ = prepared.arrays([window])
        for end in np.flatnonzero(labels != IGNORE).tolist():
            said = tokenizer.decode(ids[: end + 1].tolist())
            found.append((said.rpartition("assistant\n")[2].replace("\n", " "), int(labels[end])))
    return found


def completions(*ratings: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"text": text, "rating": rating, "flagged": False} for text, rating in ratings]


def test_alternatives_of_prm800k_hang_on_the_chosen_steps(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    steps = [
        {"completions": completions(("a1", 1), ("a2", -1)), "human_completion": None, "chosen_completion": 0},
        {
            "completions": completions(("b1", -1), ("b2", 0), ("b3", 1)),
            "human_completion": None,
            "chosen_completion": 2,
        },
        {"completions": completions(("c1", -1), ("c2", 1)), "human_completion": None, "chosen_completion": 1},
    ]
    row = {"labeler": "x", "question": {"problem": "1+1?"}, "label": {"steps": steps, "finish_reason": "solution"}}
    prepared = prepare([row], tokenizer, PrepareConfig(), tmp_path / "p")
    # 2 x 3 x 2 alternatives: 7 rated steps, each once; the cross product would rate 12 solutions.
    wanted = [("a1", 1), ("a2", -1), ("a1 b1", -1), ("a1 b2", 0), ("a1 b3", 1), ("a1 b3 c1", -1), ("a1 b3 c2", 1)]
    assert sorted(samples(prepared, tokenizer)) == sorted(wanted)
    batch = prepared.feedback_batch(np.arange(len(prepared)))
    assert set(batch.roles.tolist()) == {int(ReplyRole.STEPS)}
    assert len(batch.reply_of) == 7


def test_step_scores_are_read_where_training_reads(
    tokenizer: ChatTokenizer, tiny_model_folder: Path, tmp_path: Path
) -> None:
    row = {"prompt": "2+2*3?", "completions": ["2*3 is 6", "2+6 is 9", "so 9"], "labels": [True, False, False]}
    prepared = prepare([row], tokenizer, PrepareConfig(), tmp_path / "p")
    model = load_reward_model(tiny_model_folder, heads=2)
    batch = prepared.feedback_batch([0])
    assert batch.labels[batch.labels != IGNORE].tolist() == [1, -1, -1]
    logits = compute_columns({"policy": model}, batch, frozenset({"policy.step_logits"}))["policy.step_logits"]
    trained = logits.softmax(1)[:, 1].detach().numpy()
    scorer = ProcessRewardModel(model, tokenizer)
    (steps,) = scorer.step_scores([row["prompt"]], [row["completions"]])  # type: ignore[list-item]
    assert steps == pytest.approx(trained, abs=1e-5)
    (lines,) = scorer.step_scores(["2+2*3?"], ["2*3 is 6\n\n2+6 is 9\nso 9\n"])
    assert lines == pytest.approx(steps, abs=1e-12)
    assert scorer.score(["2+2*3?"], ["2*3 is 6\n2+6 is 9\nso 9"]) == pytest.approx([steps.prod()])


def test_how_solutions_are_batched_changes_nothing(tokenizer: ChatTokenizer, tiny_model_folder: Path) -> None:
    solutions = ["one\ntwo", "three", "four\nfive and six\nseven", "e\ni\ng\nh\nt"]
    model = load_reward_model(tiny_model_folder, heads=2)
    together = ProcessRewardModel(model, tokenizer).step_scores(["p"] * 4, solutions)
    parts = ProcessRewardModel(model, tokenizer, max_tokens=60).step_scores(["p"] * 4, solutions)
    for number, solution in enumerate(solutions):
        (alone,) = ProcessRewardModel(model, tokenizer).step_scores(["p"], [solution])
        assert len(alone) == len(solution.split("\n"))
        assert together[number] == pytest.approx(alone, abs=1e-6)
        assert parts[number] == pytest.approx(alone, abs=1e-6)
    assert ProcessRewardModel(model, tokenizer).step_scores([], []) == []


def test_neutral_counts_as_asked_with_three_classes(
    tokenizer: ChatTokenizer, tiny_model_folder: Path, tmp_path: Path
) -> None:
    save_reward_model(load_reward_model(tiny_model_folder, heads=3), tmp_path / "prm", tiny_model_folder)
    good, bad = (ProcessRewardModel.from_folder(tmp_path / "prm", neutral_is_good=flag) for flag in (True, False))
    wide, narrow = (model.step_scores(["p"], ["a\nb"])[0] for model in (good, bad))
    assert (wide > narrow).all()
    logits = load_reward_model(tmp_path / "prm").score.weight  # type: ignore[union-attr]
    assert torch.is_tensor(logits)
    assert logits.shape == (3, 32)


def test_a_right_step_more_changes_no_product_and_no_minimum() -> None:
    values = [0.9, 0.4, 0.7]
    for how in ("product", "min"):
        assert aggregate_steps([*values, 1.0], how) == pytest.approx(aggregate_steps(values, how), abs=1e-12)
    assert 0 <= aggregate_steps(values, "product") <= aggregate_steps(values, "min")
    assert aggregate_steps([0.0, 0.5], "geometric_mean") == 0.0


def test_outcomes_are_copied_to_the_steps_and_say_so(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    rows = [outcome_steps("q", "one\n\ntwo\nthree", True), outcome_steps("q", "one\nfour", False)]
    assert rows[0] == {
        "prompt": "q",
        "completions": ["one", "two", "three"],
        "labels": [True, True, True],
        "label_source": "outcome",
    }
    assert split_steps("\n\n") == []
    prepared = prepare(rows, tokenizer, PrepareConfig(), tmp_path / "p")
    assert samples(prepared, tokenizer) == [
        ("one", 1),
        ("one two", 1),
        ("one two three", 1),
        ("one", -1),
        ("one four", -1),
    ]
