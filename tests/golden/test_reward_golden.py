"""Numbers of the reward and process reward losses that were computed apart from this code."""

from __future__ import annotations

import math

import pytest
import torch
from reward_batches import column, pair_batch, ranking_batch, steps_batch

from alignite.objectives.prm import ProcessRewardObjective
from alignite.objectives.reward import RewardObjective
from alignite.scoring.process_reward import aggregate_steps

RANKED = [1.2, 0.3, -0.5, 2.0]
ORDER = [3.0, 2.0, 1.0, 4.0]  # 3 > 0 > 1 > 2


def reward_loss(objective: RewardObjective, scores: list[float], batch: object) -> float:
    term = objective.loss({"policy.score": column(scores)}, batch).terms["reward"]  # type: ignore[arg-type]
    return float(term.sum.detach()) / term.count


def test_a_ranking_is_the_mean_over_its_pairs() -> None:
    assert reward_loss(RewardObjective(), RANKED, ranking_batch(ORDER)) == pytest.approx(0.24963616661545415, abs=1e-9)
    # The mean over prompts of the means over pairs, not the mean over all pairs.
    both = reward_loss(RewardObjective(), [*RANKED, 0.0, 0.3], ranking_batch(ORDER, [0.0, 1.0]))
    assert both == pytest.approx((0.24963616661545415 + math.log1p(math.exp(-0.3))) / 2, abs=1e-9)


def test_plackett_luce() -> None:
    objective = RewardObjective("plackett_luce")
    assert reward_loss(objective, RANKED, ranking_batch(ORDER)) == pytest.approx(1.3732515714449074, abs=1e-9)


def test_soft_labels_margins_and_their_scales() -> None:
    scores = [0.8, 0.5]
    assert reward_loss(RewardObjective(), scores, pair_batch([None], [0.7])) == pytest.approx(0.6443552444, abs=1e-7)
    wanted = pytest.approx(0.7099527297, abs=1e-7)
    assert reward_loss(RewardObjective(), scores, pair_batch([1 / 3], [None])) == wanted
    assert reward_loss(RewardObjective(margin="llama2_small"), scores, pair_batch([1], [None])) == wanted
    large = reward_loss(RewardObjective(margin="llama2_large"), scores, pair_batch([3], [None]))
    assert large == pytest.approx(math.log1p(math.exp(-(0.3 - 3.0))), abs=1e-7)
    none = reward_loss(RewardObjective(margin="none"), scores, pair_batch([3], [None]))
    assert none == pytest.approx(math.log1p(math.exp(-0.3)), abs=1e-7)


def test_label_smoothing_is_a_soft_label() -> None:
    smooth = reward_loss(RewardObjective(label_smoothing=0.3), [0.8, 0.5], pair_batch([None], [None]))
    assert smooth == pytest.approx(0.6443552444, abs=1e-7)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("product", 0.3564), ("min", 0.5), ("last", 0.8), ("mean", 0.7975), ("geometric_mean", 0.7726528730704183)],
)
def test_aggregations_of_steps(how: str, wanted: float) -> None:
    assert aggregate_steps([0.9, 0.99, 0.5, 0.8], how) == pytest.approx(wanted, abs=1e-12)


def test_steps_by_hand() -> None:
    batch = steps_batch([1, 0, -1])
    logits = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.5, 0.0]], dtype=torch.float64)
    term = ProcessRewardObjective().loss({"policy.step_logits": logits}, batch).terms["prm"]
    wanted = math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.5))
    assert (float(term.sum), term.count) == (pytest.approx(wanted), 3.0)
