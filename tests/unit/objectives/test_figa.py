from __future__ import annotations

from typing import Any

import pytest
import torch
from ranked_replies import Reply, batch_of, columns_of, pair, reply, update

from alignite.errors import ConfigError, DataError
from alignite.objectives.figa import WEIGHTS, FIGAObjective, token_edits
from alignite.types import PrepassObjective

END = 2
# a b c d END and its revision a x c e d END: b is replaced by x, e is inserted.
ORIGINAL = Reply((-0.1, -0.5, -0.1, -0.1, -0.1), ids=(10, 11, 12, 13, END))
REVISED = Reply((-0.2, -3.0, -0.2, -2.0, -0.2, -0.4), ids=(10, 20, 12, 14, 13, END))


def weights(objective: FIGAObjective, records: list[Any]) -> list[float]:
    batch, columns = batch_of(records), columns_of(records)
    (found,) = objective.prepass([columns], [batch], lambda numbers: numbers)
    values: list[float] = found[WEIGHTS].tolist()
    return values


def test_it_is_an_objective_with_a_prepass() -> None:
    assert isinstance(FIGAObjective(), PrepassObjective)
    assert FIGAObjective().state_dict() == {}


def test_the_hand_example() -> None:
    records = [pair(REVISED, ORIGINAL)]
    assert weights(FIGAObjective(), records) == [0, 1, 0, 1, 0, 1, 0, -0.5, 0, 0, 0]
    loss, gradient = update(FIGAObjective(), [records])
    assert loss == pytest.approx((3.0 + 2.0 + 0.4 - 0.5 * 0.5) / 4)
    assert gradient == pytest.approx([0, -0.25, 0, -0.25, 0, -0.25, 0, 0.125, 0, 0, 0])


def test_a_token_that_the_model_would_not_say_is_not_unlearnt() -> None:
    unlikely = Reply((-0.1, -0.61, -0.1, -0.1, -0.1), ids=ORIGINAL.ids)
    assert weights(FIGAObjective(), [pair(REVISED, unlikely)]) == [0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0]
    assert weights(FIGAObjective(threshold=1.0), [pair(REVISED, unlikely)])[7] == -0.5
    assert weights(FIGAObjective(lower_threshold=0.6, threshold=1.0), [pair(REVISED, unlikely)])[7] == -0.5
    assert weights(FIGAObjective(lower_threshold=0.6, threshold=1.0), [pair(REVISED, ORIGINAL)])[7] == 0


def test_equal_answers_leave_the_end_token() -> None:
    assert weights(FIGAObjective(), [pair(ORIGINAL, ORIGINAL)]) == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_metrics() -> None:
    records = [pair(REVISED, ORIGINAL)]
    batch, columns = batch_of(records), columns_of(records)
    (found,) = FIGAObjective().prepass([columns], [batch], lambda numbers: numbers)
    metrics = FIGAObjective().loss(columns, batch.with_given(found)).metrics
    assert metrics == {"positive_tokens": (3.0, 11.0), "negative_tokens": (1.0, 11.0), "entropy": (11.0, 11.0)}


def test_a_ranking_is_refused() -> None:
    with pytest.raises(DataError, match="not a pair"):
        weights(FIGAObjective(), [pair(REVISED, ORIGINAL), [reply(-1.0, 1, 1.0)]])


@pytest.mark.parametrize(
    ("original", "revised", "removed", "added"),
    [
        ([], [], [], []),
        ([], [1, 2], [], [0, 1]),
        ([1, 2], [], [0, 1], []),
        ([1, 2, 3], [1, 3], [1], []),
        ([1, 3], [1, 2, 3], [], [1]),
        ([1, 2, 3], [4, 5, 6], [0, 1, 2], [0, 1, 2]),
        ([5, 6, 7, 7, 8], [6, 7, 8], [0, 2], []),
        ([5, 6, 7, 7, 8], [6, 7, 8, 9], [0, 3, 4], [2, 3]),
    ],
)
def test_edit_scripts(original: list[int], revised: list[int], removed: list[int], added: list[int]) -> None:
    assert token_edits(original, revised) == (removed, added)


def test_weights_are_on_the_columns_device_and_of_their_dtype() -> None:
    records = [pair(REVISED, ORIGINAL)]
    columns = {name: column.detach().float() for name, column in columns_of(records).items()}
    (found,) = FIGAObjective().prepass([columns], [batch_of(records)], lambda numbers: numbers)
    assert found[WEIGHTS].dtype == torch.float32


@pytest.mark.parametrize(
    "options", [{"negative_weight": 0.5}, {"threshold": -1.0}, {"lower_threshold": 0.7}, {"lower_threshold": -1.0}]
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FIGAObjective(**options)
