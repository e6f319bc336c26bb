from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import make_model

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, prepare_sft
from alignite.errors import ConfigError, DataError
from alignite.objectives.coh import ChainOfHindsight, CoHObjective, forget
from alignite.types import IGNORE, RowMaker, SftBatch

PAIR = {"prompt": "Where?", "chosen": "Here.", "rejected": "No idea."}
GOOD, BAD = "A helpful answer:", "An unhelpful answer:"


def texts(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["messages"]]


def test_the_four_forms() -> None:
    p, n, pn, np_ = ChainOfHindsight()([PAIR])
    assert texts(p) == [("user", f"Where?\n{GOOD}"), ("assistant", "Here.")]
    assert texts(n) == [("user", f"Where?\n{BAD}"), ("assistant", "No idea.")]
    assert texts(pn) == [*texts(p), ("user", BAD), ("assistant", "No idea.")]
    assert texts(np_) == [*texts(n), ("user", GOOD), ("assistant", "Here.")]


def test_rankings_give_their_best_and_worst_and_ties_nothing() -> None:
    ranked = {"prompt": "q", "completions": ["b", "a", "c"], "scores": [0.5, 1.0, -1.0]}
    tied = {"prompt": "q", "completions": ["b", "a"], "scores": [1.0, 1.0]}
    rows = ChainOfHindsight(forms=("pn",), good="+", bad="-", separator=" ")([ranked, tied])
    assert [texts(row) for row in rows] == [[("user", "q +"), ("assistant", "a"), ("user", "-"), ("assistant", "c")]]


def test_as_an_objective_it_makes_the_same_rows() -> None:
    objective = CoHObjective(forms=("pn", "n"), good="+", bad="-")
    assert isinstance(objective, RowMaker)
    bad: list[DataError] = []
    rows = [PAIR, {**PAIR, "prompt": []}, PAIR]
    assert list(objective.rows(rows, bad.append)) == ChainOfHindsight(forms=("pn", "n"), good="+", bad="-")([PAIR] * 2)
    assert [error.what for error in bad] == ["a prompt does not end with a user message"]
    with pytest.raises(ConfigError):
        CoHObjective(forms=())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("coh") / "model"
    make_model(folder)
    return ChatTokenizer.from_folder(folder)


def test_prepared_rows_score_the_answers_and_their_ends_alone(tokenizer: ChatTokenizer, tmp_path: Path) -> None:
    prompt = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Where?"},
    ]
    answers = {
        "chosen": [{"role": "assistant", "content": "Here."}],
        "rejected": [{"role": "assistant", "content": "No idea."}],
    }
    rows = ChainOfHindsight()([{"prompt": prompt, **answers, "weight": 0.25}])
    prepared = prepare_sft(rows, tokenizer, PrepareConfig(packing="none", max_length=512), tmp_path / "set")
    assert prepared.report["used"] == 4
    good, bad = "Here.<|im_end|>", "No idea.<|im_end|>"
    found = []
    for window in range(4):
        _, labels, _, _ = prepared.arrays([window])
        weights = prepared.weights([window])
        assert weights is not None
        assert set(weights[labels != IGNORE].tolist()) == {0.25}
        found.append(tokenizer.decode(labels[labels != IGNORE].tolist()))
    assert sorted(found) == sorted([good, bad, good + bad, bad + good])


def test_prompts_and_answers_that_cannot_be_marked() -> None:
    coh = ChainOfHindsight()
    with pytest.raises(DataError, match="user message"):
        coh([{**PAIR, "prompt": [{"role": "assistant", "content": "a"}]}])
    with pytest.raises(DataError, match="2 messages"):
        coh([{**PAIR, "chosen": [{"role": "assistant", "content": "a"}] * 2}])


@pytest.mark.parametrize("options", [{"forms": ("x",)}, {"forms": ()}, {"good": "same", "bad": "same"}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ChainOfHindsight(**options)


def test_forgetting_is_seeded_spares_first_tokens_and_labels() -> None:
    ids = torch.arange(1, 2001)
    segments = np.array([[start, 100, -1] for start in range(0, 2000, 100)])
    batch = SftBatch(ids, ids.clone(), ids, segments, 20)
    one, again, other = (forget(batch, 0, ratio=0.3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.input_ids, again.input_ids)
    assert not torch.equal(one.input_ids, other.input_ids)
    hidden = one.input_ids == 0
    assert not hidden[::100].any()
    assert 0.25 < float(hidden.float().mean()) < 0.35
    assert torch.equal(one.input_ids[~hidden], ids[~hidden])
    assert torch.equal(one.labels, batch.labels)
    assert torch.equal(forget(batch, 0, ratio=0.0).input_ids, ids)
    with pytest.raises(ConfigError):
        forget(batch, 0, ratio=1.0)
