"""The process reward objective: which class a rating is, and at which tokens."""

from __future__ import annotations

import pytest
import torch
from reward_batches import steps_batch

from alignite.errors import ModelError, NumericsError, UsageError
from alignite.objectives.prm import ProcessRewardObjective
from alignite.types import Objective


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [1, 1, 0, 0, 1]),
        ({"neutral": "bad"}, [1, 0, 0, 0, 1]),
        ({"neutral": "ignore"}, [1, -100, 0, 0, 1]),
        ({"num_classes": 3}, [2, 1, 0, 0, 2]),
        ({"train_on_last_step_only": True}, [-100, -100, 0, -100, 1]),
    ],
)
def test_ratings_are_classes(options: dict[str, object], wanted: list[int]) -> None:
    batch = steps_batch([1, 0, -1], [-1, 1])
    objective = ProcessRewardObjective(**options)  # type: ignore[arg-type]
    assert isinstance(objective, Objective)
    assert objective.targets(batch).tolist() == wanted
    used = [label for label in wanted if label != -100]
    logits = torch.zeros(5, objective.num_classes, requires_grad=True)
    output = objective.loss({"policy.step_logits": logits}, batch)
    assert output.terms["prm"].count == objective.counts(batch)["prm"] == len(used)
    output.terms["prm"].sum.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) > 0).tolist() == [label != -100 for label in wanted]
    assert batch.labels[1] == 1  # the batch stays as it was


def test_metrics_tell_good_steps_from_bad() -> None:
    logits = torch.tensor([[0.0, 9.0], [0.0, 9.0], [0.0, 9.0]])
    metrics = ProcessRewardObjective().loss({"policy.step_logits": logits}, steps_batch([1, 0, -1])).metrics
    assert metrics["accuracy"] == (2, 3)
    assert metrics["accuracy_good"] == (2, 2)
    assert metrics["accuracy_bad"] == (0, 1)
    assert metrics["mean_step_reward"][0] == pytest.approx(3, abs=1e-3)


def test_what_does_not_fit_is_refused() -> None:
    batch = steps_batch([1])
    with pytest.raises(ModelError, match="1 classes"):
        ProcessRewardObjective().loss({"policy.step_logits": torch.zeros(1, 1)}, batch)
    with pytest.raises(NumericsError, match="record 0"):
        ProcessRewardObjective().loss({"policy.step_logits": torch.full((1, 2), float("nan"))}, batch)
    for options in ({"num_classes": 4}, {"neutral": "x"}):
        with pytest.raises(UsageError):
            ProcessRewardObjective(**options)  # type: ignore[arg-type]
