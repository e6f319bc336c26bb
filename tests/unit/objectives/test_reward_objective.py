"""The reward objective's terms, counts and metrics, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reward_batches import column, feedback_batch, pair_batch, ranking_batch

from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, prepare
from alignite.errors import ConfigError, DataError, NumericsError, UsageError
from alignite.models.columns import compute_columns
from alignite.models.reward_files import load_reward_model
from alignite.objectives.reward import RewardObjective
from alignite.types import Objective, ReplyRole


def test_counts_are_those_of_the_terms() -> None:
    objective = RewardObjective(center_rewards_coefficient=0.01, lm_coefficient=0.1)
    assert isinstance(objective, Objective)
    # A pair, a ranking with a tie, one without any pair.
    batch = feedback_batch(
        [
            (0, ReplyRole.CHOSEN, np.nan),
            (0, ReplyRole.REJECTED, np.nan),
            (1, ReplyRole.REPLY, 1.0),
            (1, ReplyRole.REPLY, 1.0),
            (1, ReplyRole.REPLY, 0.0),
            (2, ReplyRole.REPLY, 4.0),
        ]
    )
    scores = column([0.5, -0.5, 1.0, 2.0, 3.0, 9.0])
    logp = torch.arange(12.0, dtype=torch.float64)
    output = objective.loss({"policy.score": scores, "policy.logp": logp}, batch)
    assert {name: term.count for name, term in output.terms.items()} == objective.counts(batch)
    assert objective.counts(batch) == {"reward": 2, "center": 2, "lm": 8}
    # The best replies are 0, 2, 3 and the lonely 5.
    assert float(output.terms["lm"].sum.detach()) == -(0 + 1 + 4 + 5 + 6 + 7 + 10 + 11)
    assert float(output.terms["center"].sum.detach()) == pytest.approx(0.0 + (16 + 25) / 2)
    assert (output.terms["center"].weight, output.terms["lm"].weight) == (0.01, 0.1)
    assert output.metrics["accuracy"] == (1, 3)
    assert output.metrics["margin"] == (pytest.approx(1.0 - 2.0 - 1.0), 3)
    assert output.metrics["no_pair"] == (1, 3)
    assert output.metrics["min_reward"] == (pytest.approx(0.5), 2)
    assert output.metrics["mean_reward"] == (pytest.approx(2.0), 2)
    assert output.metrics["max_reward"] == (pytest.approx(3.5), 2)
    output.terms["reward"].sum.backward()
    assert scores.grad is not None
    assert scores.grad[5] == 0


def test_without_pairs_the_loss_is_a_zero_with_a_graph() -> None:
    for kind in ("bradley_terry", "plackett_luce"):
        scores = column([1.0, 2.0, 3.0])
        term = RewardObjective(kind).loss({"policy.score": scores}, ranking_batch([1.0], [2.0, 2.0])).terms["reward"]
        assert (float(term.sum.detach()), term.count) == (0.0, 0.0)
        term.sum.backward()
        assert scores.grad is not None


def test_an_even_pair_decides_no_accuracy_and_a_doubtful_one_is_turned() -> None:
    output = RewardObjective().loss(
        {"policy.score": column([1, 0, 1, 0, 1, 0])}, pair_batch([None] * 3, [0.5, 0.2, 0.9])
    )
    assert output.metrics["accuracy"] == (1, 2)


def test_a_criterion_chooses_the_head() -> None:
    batch = pair_batch([None, None], [None, None])
    scores = torch.tensor([[1.0, 5.0], [0.0, 0.0], [3.0, 2.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    objective = RewardObjective()
    chosen = objective.loss({"policy.score": scores}, batch.with_given({"criterion": torch.tensor([0, 1])}))
    alone = objective.loss({"policy.score": column([1.0, 0.0, 2.0, 0.0])}, batch)
    assert float(chosen.terms["reward"].sum.detach()) == pytest.approx(float(alone.terms["reward"].sum.detach()))
    chosen.terms["reward"].sum.backward()
    assert scores.grad is not None
    assert scores.grad[0, 1] == scores.grad[2, 0] == 0
    every = objective.loss({"policy.score": scores.detach()}, batch).terms["reward"]
    heads = [
        float(objective.loss({"policy.score": scores.detach()[:, [n]]}, batch).terms["reward"].sum) for n in (0, 1)
    ]
    assert float(every.sum.detach()) == pytest.approx(sum(heads) / 2)
    with pytest.raises(DataError, match="criterion"):
        objective.loss({"policy.score": scores}, batch.with_given({"criterion": torch.tensor([0, 2])}))


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(NumericsError, match="nan") as error:
        RewardObjective().loss(
            {"policy.score": column([0.0, 1.0, float("nan"), 1.0])}, pair_batch([None] * 2, [None] * 2)
        )
    assert "record 1" in str(error.value)
    with pytest.raises(DataError, match="no degree"):
        RewardObjective(margin="llama2_small").loss({"policy.score": column([0.0, 1.0])}, pair_batch([0.5], [None]))
    for options in ({"loss_type": "x"}, {"margin": "x"}, {"label_smoothing": 0.5}, {"lm_coefficient": -1.0}):
        with pytest.raises(UsageError):
            RewardObjective(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="label_smoothing is given with plackett_luce"):
        RewardObjective("plackett_luce", label_smoothing=0.1)


def test_each_reply_of_a_ranking_is_encoded_once(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "say a letter", "completions": ["a", "bb", "ccc", "d"], "scores": [4, 3, 2, 1]}]
    prepared = prepare(rows, ChatTokenizer.from_folder(tiny_model_folder), PrepareConfig(), tmp_path / "p")
    model = load_reward_model(tiny_model_folder)
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda module, inputs, output: seen.append(inputs[0].numel())
    )
    batch = prepared.feedback_batch([0])
    compute_columns({"policy": model}, batch, frozenset({"policy.score"}))
    seen.clear()  # the first call also tries how the model may be run
    columns = compute_columns({"policy": model}, batch, frozenset({"policy.score"}))
    prompt = int(batch.segments[0, 1])
    assert seen == [batch.num_tokens] == [prompt + sum(len(text) + 1 for text in rows[0]["completions"])]
    assert columns["policy.score"].shape == (4, 1)
    assert float(RewardObjective().loss(columns, batch).terms["reward"].count) == 1


def test_the_language_model_term_is_that_of_the_chosen_replies(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "yes", "rejected": "no way"}, {"prompt": "p", "chosen": "a", "rejected": "b"}]
    prepared = prepare(rows, ChatTokenizer.from_folder(tiny_model_folder), PrepareConfig(), tmp_path / "p")
    batch = prepared.feedback_batch([0, 1])
    model = load_reward_model(tiny_model_folder)
    assert RewardObjective(lm_coefficient=0.0).columns == {"policy.score"}
    objective = RewardObjective(lm_coefficient=0.5)
    columns = compute_columns({"policy": model}, batch, objective.columns)
    output = objective.loss(columns, batch)
    chosen = torch.from_numpy(batch.roles == ReplyRole.CHOSEN)[batch.reply_of]
    assert output.terms["lm"].count == float(chosen.sum()) == len("yes") + len("a") + 2
    assert float(output.terms["lm"].sum.detach()) == pytest.approx(
        -float(columns["policy.logp"][chosen].sum().detach())
    )
    plain = RewardObjective().loss(compute_columns({"policy": model}, batch, frozenset({"policy.score"})), batch)
    assert float(output.terms["reward"].sum.detach()) == pytest.approx(
        float(plain.terms["reward"].sum.detach()), abs=1e-6
    )
    assert "lm" not in plain.terms


def test_training_orders_the_pairs(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}", "chosen": f"good {n * 7}", "rejected": f"bad {n * 5}"} for n in range(16)]
    prepared = prepare(rows, ChatTokenizer.from_folder(tiny_model_folder), PrepareConfig(), tmp_path / "p")
    model = load_reward_model(tiny_model_folder, seed=1)
    objective = RewardObjective()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    shares, losses = [], []
    for _ in range(25):
        batch = prepared.feedback_batch(np.arange(16))
        output = objective.loss(compute_columns({"policy": model}, batch, objective.columns), batch)
        optimizer.zero_grad()
        (output.terms["reward"].sum / output.terms["reward"].count).backward()
        optimizer.step()
        losses.append(float(output.terms["reward"].sum.detach()) / 16)
        shares.append(output.metrics["accuracy"][0] / output.metrics["accuracy"][1])
    assert losses[-1] < 0.2 < losses[0]
    assert shares[-1] == 1.0
