"""What holds for any scores: shifts change nothing, order of replies neither, gradients sum to nought."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_batches import feedback_batch, pair_batch, ranking_batch

from alignite.objectives.reward import RewardObjective
from alignite.types import FeedbackBatch, ReplyRole

KINDS = ("bradley_terry", "plackett_luce")
floats = st.floats(-4, 4)
replies = st.lists(st.tuples(floats, st.integers(0, 3).map(float)), min_size=2, max_size=6)


def loss(kind: str, scores: torch.Tensor, batch: FeedbackBatch) -> torch.Tensor:
    return RewardObjective(kind).loss({"policy.score": scores[:, None]}, batch).terms["reward"].sum


@pytest.mark.parametrize("kind", KINDS)
@given(drawn=replies, shift=floats, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shifts_and_order_change_nothing_and_gradients_cancel(
    kind: str, drawn: list[tuple[float, float]], shift: float, seed: int
) -> None:
    scores = torch.tensor([score for score, _ in drawn], dtype=torch.float64, requires_grad=True)
    ranks = [rank for _, rank in drawn]
    plain = loss(kind, scores, ranking_batch(ranks))
    plain.backward()
    assert scores.grad is not None
    assert float(scores.grad.sum()) == pytest.approx(0, abs=1e-6)
    assert float(loss(kind, scores.detach() + shift, ranking_batch(ranks))) == pytest.approx(
        float(plain.detach()), abs=1e-6
    )
    order = np.random.default_rng(seed).permutation(len(drawn))
    moved = loss(kind, scores.detach()[torch.from_numpy(order)], ranking_batch([ranks[n] for n in order]))
    assert float(moved) == pytest.approx(float(plain.detach()), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(first=floats, second=floats)
@settings(max_examples=20, deadline=None)
def test_a_ranking_of_two_is_a_pair(kind: str, first: float, second: float) -> None:
    scores = torch.tensor([first, second], dtype=torch.float64)
    ranked = loss(kind, scores, ranking_batch([1.0, 0.0]))
    pair = loss(kind, scores, pair_batch([None], [None]))
    assert float(ranked) == pytest.approx(float(pair), abs=1e-6)
    assert float(pair) == pytest.approx(float(np.logaddexp(0, second - first)), abs=1e-6)


@given(drawn=st.lists(replies, min_size=2, max_size=4))
@settings(max_examples=20, deadline=None)
def test_how_records_are_split_changes_nothing(drawn: list[list[tuple[float, float]]]) -> None:
    objective = RewardObjective(center_rewards_coefficient=0.1)

    def run(records: list[list[tuple[float, float]]]) -> dict[str, list[float]]:
        batch = feedback_batch([(n, ReplyRole.REPLY, rank) for n, ranking in enumerate(records) for _, rank in ranking])
        scores = torch.tensor([[score] for ranking in records for score, _ in ranking], dtype=torch.float64)
        output = objective.loss({"policy.score": scores}, batch)
        sums = {name: [float(term.sum), term.count] for name, term in output.terms.items()}
        return sums | {f"metric {name}": list(value) for name, value in output.metrics.items()}

    parts = [run([ranking]) for ranking in drawn]
    for name, value in run(drawn).items():
        assert value == pytest.approx(np.sum([part[name] for part in parts], axis=0).tolist(), abs=1e-6), name
