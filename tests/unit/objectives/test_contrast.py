from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from ranked_replies import Reply, batch_of, columns_of

from alignite.errors import ConfigError
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.types import FeedbackBatch, PrepassObjective

OBJECTIVE = InstructionContrastObjective()


def group(table: Sequence[Sequence[float]]) -> list[list[Reply]]:
    """Records of instructions k that hold every output i with log-probability ``table[i][k]``, their own first."""
    count = len(table)
    return [
        [
            Reply((table[i][k],), 1.0 if i == k else 0.0, ids=(100 + i,))
            for i in sorted(range(count), key=lambda i: (i != k, i))
        ]
        for k in range(count)
    ]


def contrast(records: list[list[Reply]], prompts: Sequence[Sequence[int]]) -> tuple[float, list[float]]:
    """The contrast term over its count, and its gradient by each token."""
    batch, columns = batch_of(records, prompts), columns_of(records)
    (found,) = OBJECTIVE.prepass([columns], [batch], lambda numbers: numbers)
    output = OBJECTIVE.loss(columns, batch.with_given(found))
    term = output.terms["contrast"]
    term.sum.backward()  # type: ignore[no-untyped-call]
    grad = columns["policy.logp"].grad
    assert grad is not None
    return float(term.sum.detach()) / term.count, grad.tolist()


def different(count: int) -> list[tuple[int, ...]]:
    return [(1, 5 + k) for k in range(count)]


def test_it_is_an_objective_with_a_prepass() -> None:
    assert isinstance(OBJECTIVE, PrepassObjective)
    assert OBJECTIVE.state_dict() == {}


def test_alone_it_is_zero() -> None:
    assert contrast(group([[-7.0]]), different(1)) == (0.0, [0.0])


@pytest.mark.parametrize("count", [2, 5])
def test_identical_instructions_give_the_log_of_their_number(count: int) -> None:
    table = [[-1.0 - i] * count for i in range(count)]
    same = [(1, 2, 3)] * count
    loss, gradient = contrast(group(table), same)
    assert loss == pytest.approx(math.log(count))
    # An output's log-probability is one number, whichever copy of the instruction it stands under: no net gradient.
    assert sum(gradient) == pytest.approx(0.0, abs=1e-12)
    assert contrast(group(table), different(count))[0] == pytest.approx(math.log(count))


def test_an_output_is_no_negative_of_the_instruction_it_shares_with_another() -> None:
    # Two outputs of one instruction, which stands twice in the group, and one of another.
    table = [[-1.0, -1.0, -4.0], [-2.0, -2.0, -0.5], [-6.0, -6.0, -1.0]]
    shared, other = (1, 5), (1, 6)
    loss, gradient = contrast(group(table), [shared, shared, other])
    outputs = [*(0, 1, 2), *(1, 0, 2), *(2, 0, 1)]  # own first, under each instruction
    for output in range(2):
        under = [sum(gradient[3 * k + place] for k in ks for place in range(3) if outputs[3 * k + place] == output)
                 for ks in ((0, 1), (2,))]  # fmt: skip
        own, foreign = table[output][0], table[output][2]
        share = 2 * math.exp(own) / (2 * math.exp(own) + math.exp(foreign))
        assert under == [pytest.approx(share - 1), pytest.approx(1 - share)]
        assert under[0] < 0
    assert loss > 2 / 3 * math.log(2)


def test_the_softmax_by_hand_pushes_the_own_instruction_up() -> None:
    loss, gradient = contrast(group([[-1.0, -2.0], [-5.0, -3.0]]), different(2))
    first, second = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert loss == pytest.approx(-(math.log(first) + math.log(second)) / 2)
    # In the order own 0, output 1 under instruction 0, own 1, output 0 under instruction 1.
    assert gradient == pytest.approx([first - 1, 1 - second, second - 1, 1 - first])


def test_far_apart_log_probabilities_do_not_overflow() -> None:
    loss, _ = contrast(group([[-2000.0, -1.0], [-1.0, -3000.0]]), different(2))
    assert loss == pytest.approx((1999 + 2999) / 2)


def test_micro_batches_and_ranks_change_nothing() -> None:
    table = [[-1.0, -2.0, -4.0], [-5.0, -3.0, -2.5], [-3.0, -6.0, -3.5]]
    records, prompts = group(table), different(3)
    whole, gradient = contrast(records, prompts)
    parts = [
        (batch_of([record], [prompt]), columns_of([record])) for record, prompt in zip(records, prompts, strict=True)
    ]

    def loss_of(batches: Sequence[FeedbackBatch], found: Sequence[dict[str, object]]) -> float:
        return sum(
            float(OBJECTIVE.loss(columns, batch.with_given(more)).terms["contrast"].sum.detach())  # type: ignore[arg-type]
            for batch, (_, columns), more in zip(batches, parts, found, strict=True)
        )

    batches = [batch for batch, _ in parts]
    found = OBJECTIVE.prepass([columns for _, columns in parts], batches, lambda numbers: numbers)
    assert loss_of(batches, found) / 3 == pytest.approx(whole, abs=1e-12)
    # Two ranks, one with two records: total() is what both of them said.
    said: list[dict[str, float]] = []

    def say(numbers: dict[str, float]) -> dict[str, float]:
        said.append(numbers)
        return numbers

    def add(_: dict[str, float]) -> dict[str, float]:
        names = {name for part in said[:2] for name in part}
        return {name: sum(part.get(name, 0.0) for part in said[:2]) for name in names}

    shares = [parts[:2], parts[2:]]
    for total in (say, add):
        found = [
            more
            for share in shares
            for more in OBJECTIVE.prepass([columns for _, columns in share], [batch for batch, _ in share], total)
        ]
    assert loss_of(batches, found) / 3 == pytest.approx(whole, abs=1e-12)
    slopes = [slope for more in found for slope in more["contrast.slope"].tolist()]
    assert slopes == pytest.approx(gradient)


def test_the_sum_of_both_terms_and_the_metric() -> None:
    records = group([[-1.0, -2.0], [-5.0, -3.0]])
    batch, columns = batch_of(records, different(2)), columns_of(records)
    (found,) = OBJECTIVE.prepass([columns], [batch], lambda numbers: numbers)
    output = OBJECTIVE.loss(columns, batch.with_given(found))
    assert {name: term.count for name, term in output.terms.items()} == OBJECTIVE.counts(batch)
    assert (float(output.terms["sft"].sum.detach()), output.terms["sft"].count) == (4.0, 2.0)
    first, second = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert output.metrics["own_probability"] == (pytest.approx(first + second), 2.0)


def test_label_smoothing_and_entropy_are_of_own_outputs_alone() -> None:
    records = group([[-1.0, -2.0], [-5.0, -3.0]])
    batch, columns = batch_of(records, different(2)), columns_of(records)
    objective = InstructionContrastObjective(label_smoothing=0.2, entropy_coef=0.1)
    assert objective.columns - OBJECTIVE.columns == {"policy.mean_logp", "policy.graphed_entropy"}
    (found,) = objective.prepass([columns], [batch], lambda numbers: numbers)
    output = objective.loss(columns, batch.with_given(found))
    assert {name: term.count for name, term in output.terms.items()} == objective.counts(batch)
    # columns_of: the mean over the vocabulary is 2 l - 5, the entropy 3 + l / 4; own log-probabilities are -1 and -3
    assert float(output.terms["sft"].sum.detach()) == pytest.approx(0.8 * 4 + 0.2 * (7 + 11))
    assert float(output.terms["entropy"].sum.detach()) == pytest.approx(-(2.75 + 2.25))
    assert (output.terms["entropy"].weight, output.terms["entropy"].count) == (0.1, 2.0)


def test_an_output_whose_own_instruction_is_elsewhere_takes_no_part() -> None:
    records = [[Reply((-1.0,), 1.0, ids=(100,)), Reply((-2.0,), 0.0, ids=(101,))]]
    assert contrast(records, different(1)) == (0.0, [0.0, 0.0])


def test_outputs_that_are_contrasted_with_none_are_counted() -> None:
    records = group([[-1.0, -2.0], [-5.0, -3.0]])
    records.append([Reply((-4.0,), 1.0, ids=(109,))])
    batch, columns = batch_of(records, different(3)), columns_of(records)
    (found,) = OBJECTIVE.prepass([columns], [batch], lambda numbers: numbers)
    assert OBJECTIVE.loss(columns, batch.with_given(found)).metrics["alone"] == (1.0, 3.0)


def test_options_out_of_range() -> None:
    for options in ({"contrast_weight": -1.0}, {"label_smoothing": 1.0}, {"entropy_coef": -0.1}):
        with pytest.raises(ConfigError):
            InstructionContrastObjective(**options)
