from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ranked_replies import pair, reply, terms, update, value

from alignite.errors import ConfigError
from alignite.objectives.stable_alignment import StableAlignmentObjective
from alignite.types import Objective

RATINGS = (3.0, 7.0, 1.0, 5.0)


def test_it_is_an_objective() -> None:
    assert isinstance(StableAlignmentObjective(), Objective)
    assert StableAlignmentObjective().state_dict() == {}


def reference_margins(ratings: tuple[float, ...]) -> dict[int, float]:
    """The rating gaps that the authors' code takes, by reply: it looks up sorted ratings by unsorted places."""
    order = np.argsort(-np.array(ratings), kind="stable")
    ordered = np.array(ratings)[order]
    return {int(place): float(ordered[0] - ordered[place]) for place in order[1:]}


def test_margins_are_each_replys_own_where_the_reference_takes_anothers() -> None:
    objective = StableAlignmentObjective(margin=7.0)
    ours = dict(zip((0, 2, 3), objective.margins(7.0, np.array([3.0, 1.0, 5.0])).tolist(), strict=True))
    assert ours == {0: 4.0, 2: 6.0, 3: 2.0}
    assert reference_margins(RATINGS) == {3: 6.0, 0: 0.0, 2: 4.0}


def test_the_loss_uses_the_right_margins() -> None:
    # Means: -2 each but the best, -1. The hinge is of -1 + each margin.
    replies = [reply(-2.0 * n, n, score) for n, score in zip((1, 2, 3, 4), RATINGS, strict=True)]
    replies[1] = reply(-2.0, 2, 7.0)
    objective = StableAlignmentObjective(margin=7.0, ratio=0.5)
    assert terms(objective, [replies]) == {"best": pytest.approx(1.0), "contrast": pytest.approx((3 + 5 + 1) / 3)}
    assert value(objective, [replies]) == pytest.approx(1 + 0.5 * 3)
    largest = StableAlignmentObjective(margin=7.0, max_flow=True)
    assert terms(largest, [replies])["contrast"] == pytest.approx(5.0)


def test_equal_ratings_are_a_plain_hinge_on_the_losses_in_either_order() -> None:
    records = [reply(-4.0, 1, 2.0), reply(-1.0, 1, 2.0)]
    found = terms(StableAlignmentObjective(), [records])
    # Either is the best in turn: losses 4 and 1, hinges 3 and 0.
    assert found == {"best": pytest.approx(2.5), "contrast": pytest.approx(1.5)}
    assert terms(StableAlignmentObjective(), [records[::-1]]) == found


def test_a_satisfied_hinge_gives_no_gradient_to_the_others() -> None:
    records = [[reply(-1.0, 2, 7.0), reply(-90.0, 3, 0.0)]]
    _, gradient = update(StableAlignmentObjective(), [records])
    assert gradient == pytest.approx([-0.5] * 2 + [0.0] * 3)


def test_a_violated_one_does_by_their_lengths() -> None:
    records = [pair(reply(-1.0, 2), reply(-3.0, 3))]
    _, gradient = update(StableAlignmentObjective(ratio=0.2), [records])
    assert gradient == pytest.approx([-0.5 * 1.2] * 2 + [0.2 / 3] * 3)


def test_a_reply_alone_is_imitated_and_unrated_ones_do_not_take_part() -> None:
    records = [[reply(-4.0, 2, 5.0), reply(-1.0, 1, math.nan)]]
    assert terms(StableAlignmentObjective(), records) == {"best": pytest.approx(2.0), "contrast": 0.0}


@pytest.mark.parametrize("options", [{"ratio": -0.1}, {"margin": -1.0}, {"rating_scale": 0.0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        StableAlignmentObjective(**options)
