from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from feedback_batches import Record, columns_of_sums, make_batch, pair, random_columns, ranking, split, summed
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignite.config import DPOConfig
from alignite.errors import ConfigError
from alignite.objectives.aot import AOT, AOTObjective, dpo_objective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.pieces import gaps, preference_pairs, reply_sums
from alignite.objectives.registry import make_objective
from alignite.types import FeedbackBatch, PrepassObjective

RECORDS = [pair(3, 5), pair(4, 1), ranking((2.0, 1.0, 0.0)), pair(2, 2), pair(6, 3), pair(1, 1), pair(2, 7), pair(3, 3)]


def sorted_loss(name: str, batch: FeedbackBatch, columns: dict[str, Tensor], beta: float, e: float) -> Tensor:
    """The loss as it is written, sorting with a graph."""
    pairs = preference_pairs(batch)
    policy, reference = (reply_sums(columns[f"{role}.logp"], batch) for role in ("policy", "reference"))
    ratios = policy - reference
    sides = {
        "aot": (gaps(policy, pairs), gaps(reference, pairs)),
        "aot_unpaired": (ratios[pairs.chosen], ratios[pairs.rejected]),
    }
    first, second = (side.sort().values for side in sides[name])
    z = beta * (first - second)
    return (-(1 - e) * logsigmoid(z) - e * logsigmoid(-z)).mean()


@pytest.mark.parametrize("name", AOT)
@pytest.mark.parametrize("at", [(), (4,), (1, 3, 6), tuple(range(1, 8))])
def test_value_and_gradient_are_those_of_the_sorted_loss_however_it_is_split(name: str, at: Sequence[int]) -> None:
    for seed in range(3):
        columns = random_columns(make_batch(RECORDS), seed)
        objective = AOTObjective(loss_type=(name,), beta=0.7, label_smoothing=0.1)
        batches, parts = split(RECORDS, columns, at, make_batch)
        loss, _, outputs = summed(objective, batches, parts)
        expected = sorted_loss(name, make_batch(RECORDS), columns, 0.7, 0.1)
        assert sum(output.terms[name].count for output in outputs) == 10  # a ranking's three pairs count each
        assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
        logp = columns["policy.logp"]
        torch.testing.assert_close(*(torch.autograd.grad(x, logp)[0] for x in (loss, expected)), atol=1e-12, rtol=0)


def test_the_reference_runs_once() -> None:
    batch = make_batch(RECORDS)
    columns = {name: value.detach() for name, value in random_columns(batch).items()}
    objective = AOTObjective()
    assert objective.prepass_columns == {"policy.logp", "reference.logp"}
    (given,) = objective.prepass([columns], [batch], lambda numbers: numbers)
    assert given["reference.logp"] is columns["reference.logp"]


def on_ranks(
    objective: AOTObjective, shares: Sequence[tuple[list[FeedbackBatch], list[dict[str, Tensor]]]]
) -> list[dict[str, Tensor]]:
    """What the pre-pass of each rank gives, when each knows what all said."""
    said: list[dict[str, float]] = []

    def say(numbers: dict[str, float]) -> dict[str, float]:
        said.append(numbers)
        return numbers

    def add(_: dict[str, float]) -> dict[str, float]:
        names = {name for part in said for name in part}
        return {name: sum(part.get(name, 0.0) for part in said) for name in names}

    def run(total: Callable[[dict[str, float]], dict[str, float]]) -> list[dict[str, Tensor]]:
        return [more for batches, columns in shares for more in objective.prepass(columns, batches, total)]

    run(say)
    return run(add)


@pytest.mark.parametrize("name", AOT)
def test_ranks_change_nothing(name: str) -> None:
    objective = AOTObjective(loss_type=(name,))
    columns = random_columns(make_batch(RECORDS))
    batches, parts = split(RECORDS, columns, (2, 5), make_batch)
    given = on_ranks(objective, [(batches[:2], parts[:2]), (batches[2:], parts[2:]), ([], [])])
    terms = [
        objective.loss({**own, **more}, batch.with_given(more)).terms[name]
        for batch, own, more in zip(batches, parts, given, strict=True)
    ]
    loss = sum((term.sum for term in terms), torch.zeros(())) / sum(term.count for term in terms)
    assert loss.item() == pytest.approx(summed(objective, batches, parts)[0].item(), abs=1e-12)


@pytest.mark.parametrize("name", AOT)
@pytest.mark.parametrize("at", [(), (1, 2)])
def test_pairs_that_tie_share_their_places(name: str, at: Sequence[int]) -> None:
    records: list[Record] = [pair(1, 1)] * 3
    # aot: policy differences 1, 1, 4 and reference differences 0, 2, 6; aot_unpaired: ratios of chosen 1, 1, 4
    policy, reference = {
        "aot": ((1.0, 0.0, 1.0, 0.0, 4.0, 0.0), (0.0, 0.0, 2.0, 0.0, 6.0, 0.0)),
        "aot_unpaired": ((1.0, 0.0, 1.0, 2.0, 4.0, 6.0), (0.0,) * 6),
    }[name]
    columns = columns_of_sums(make_batch(records), policy, reference)
    batches, parts = split(records, columns, at, make_batch)
    loss = summed(AOTObjective(loss_type=(name,), beta=1.0), batches, parts)[0]

    def f(z: float) -> float:
        return math.log1p(math.exp(-z))

    assert loss.item() == pytest.approx((f(1 - 0) + f(1 - 2) + f(4 - 6)) / 3)
    slope = [-1 / (1 + math.exp(z)) / 3 for z in (1.0, -1.0, -2.0)]
    shared = (slope[0] + slope[1]) / 2
    found = torch.autograd.grad(loss, columns["policy.logp"])[0]
    assert found[0::2].tolist() == pytest.approx([shared, shared, slope[2]])
    if name == "aot":
        assert found[1::2].tolist() == pytest.approx([-shared, -shared, -slope[2]])
    else:
        assert found[1::2].tolist() == pytest.approx([-one for one in slope])


def test_a_policy_that_is_its_reference_starts_at_ln_2() -> None:
    columns = random_columns(make_batch(RECORDS))
    columns["reference.logp"] = columns["policy.logp"].detach()
    for name in AOT:
        assert summed(AOTObjective(loss_type=(name,)), [make_batch(RECORDS)], [columns])[0].item() == pytest.approx(
            math.log(2)
        )


def test_without_a_reference_it_is_a_logistic_loss_of_differences() -> None:
    batch = make_batch([pair(2, 2), pair(3, 1)])
    columns = random_columns(batch)
    objective = AOTObjective(reference_free=True)
    assert objective.prepass_columns == {"policy.logp"}
    plain = DPOObjective(reference_free=True)
    assert summed(objective, [batch], [{"policy.logp": columns["policy.logp"], **columns}])[0].item() != 0
    without = {name: value for name, value in columns.items() if name != "reference.logp"}
    assert summed(objective, [batch], [without])[0].item() == pytest.approx(summed(plain, [batch], [without])[0].item())


def test_no_pair_gives_a_zero_and_a_number_that_is_none_no_other_error() -> None:
    tied = make_batch([ranking((1.0, 1.0))])
    for name in AOT:
        loss = summed(AOTObjective(loss_type=(name,)), [tied], [random_columns(tied)])[0]
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0
        batch = make_batch(RECORDS)
        columns = random_columns(batch)
        columns["policy.logp"] = columns["policy.logp"].detach().index_fill(0, torch.tensor([1, 30]), math.nan)
        assert summed(AOTObjective(loss_type=(name,)), [batch], [columns])[0].isnan()


def test_the_options_choose_the_class() -> None:
    assert type(dpo_objective(loss_type=["sigmoid"])) is type(dpo_objective()) is DPOObjective
    assert not isinstance(DPOObjective(), PrepassObjective)
    made = make_objective("dpo", loss_type=["sigmoid", "aot_unpaired"], loss_weights=[1.0, 0.5])
    assert isinstance(made, AOTObjective)
    assert isinstance(made, PrepassObjective)
    DPOConfig(loss_type=["aot"]).validate()
    with pytest.raises(ConfigError, match="aot sorts the pairs"):
        DPOObjective(loss_type=("aot",))
    with pytest.raises(ConfigError, match="use_weighting is given with aot"):
        AOTObjective(use_weighting=True)
    with pytest.raises(ConfigError, match="does not reach aot"):
        AOTObjective(f_divergence_type="forward_kl")
