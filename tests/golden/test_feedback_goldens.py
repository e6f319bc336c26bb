"""FIGA, Quark, instruction contrast and stable alignment against their equations in plain Python, in float64.

The numbers are also written out, so that a change of both sides is seen.
"""

from __future__ import annotations

import math
import random
from functools import cache

import pytest
from ranked_replies import Reply, batch_of, columns_of, pair, value

from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.figa import FIGAObjective, token_edits
from alignite.objectives.quark import QuarkObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective


def drawn(seed: int, lengths: list[int], scores: list[float] | None = None) -> list[Reply]:
    """Replies with log-probabilities of three decimals, of the policy and of a reference."""
    rng = random.Random(seed)
    replies = []
    for n, length in enumerate(lengths):
        logps = tuple(round(-rng.expovariate(1.5), 3) for _ in range(length))
        reference = tuple(round(-rng.expovariate(1.5), 3) for _ in range(length))
        ids = (*(rng.randrange(10, 14) for _ in range(length - 1)), 2)
        replies.append(Reply(logps, math.nan if scores is None else scores[n], reference=reference, ids=ids))
    return replies


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """The Levenshtein distance by its recursion."""

    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return of(len(a), len(b))


@pytest.mark.parametrize("seed", range(30))
def test_an_edit_script_is_a_shortest_one(seed: int) -> None:
    rng = random.Random(seed)
    a, b = (tuple(rng.randrange(4) for _ in range(rng.randrange(12))) for _ in range(2))
    removed, added = token_edits(a, b)
    # What is kept of both is the same, in the same order.
    assert [t for n, t in enumerate(a) if n not in removed] == [t for n, t in enumerate(b) if n not in added]
    # A replacement is one removed and one added between the same two kept tokens.
    gaps_a = [n - sum(r < n for r in removed) for n in removed]
    gaps_b = [n - sum(r < n for r in added) for n in added]
    edits = sum(max(gaps_a.count(gap), gaps_b.count(gap)) for gap in {*gaps_a, *gaps_b})
    assert edits == distance(a, b)
    assert token_edits(b, a) == (added, removed)


def test_figa() -> None:
    records = []
    total, count = 0.0, 0
    for seed in range(4):
        revised, original = drawn(seed, [7, 6])
        records.append(pair(revised, original))
        removed, added = token_edits(original.tokens, revised.tokens)
        learnt = {*added, 6}
        unlearnt = {n for n in removed if math.exp(original.logps[n]) >= math.exp(-0.6)}
        total += sum(-revised.logps[n] for n in learnt) + 0.5 * sum(original.logps[n] for n in unlearnt)
        count += len(learnt) + len(unlearnt)
    assert value(FIGAObjective(), records) == pytest.approx(total / count, abs=1e-12)
    assert value(FIGAObjective(), records) == pytest.approx(FIGA, abs=1e-12)


def test_quark() -> None:
    replies = drawn(11, [3, 5, 2])
    costs = []
    for one in replies:
        assert one.reference is not None
        for policy, reference in zip(one.logps, one.reference, strict=True):
            u = math.exp(reference) / math.exp(policy)
            costs.append(-policy + 0.05 * (u - 1 - math.log(u)))
    found = value(QuarkObjective(kl="k3"), [[one] for one in replies])
    assert found == pytest.approx(sum(costs) / 10, abs=1e-12)
    assert found == pytest.approx(QUARK, abs=1e-12)


def test_instruction_contrast() -> None:
    rng = random.Random(5)
    table = [[round(-rng.uniform(0, 4), 3) for _ in range(3)] for _ in range(3)]
    records = [[Reply((table[i][k] / 2,) * 2, float(i == k), ids=(50 + i, 2)) for i in range(3)] for k in range(3)]
    contrast = sum(math.log(sum(math.exp(p) for p in table[i])) - table[i][i] for i in range(3)) / 3
    supervised = -sum(table[i][i] for i in range(3)) / 6
    objective = InstructionContrastObjective()
    batch, columns = batch_of(records, [(1, 5 + k) for k in range(3)]), columns_of(records)
    (found,) = objective.prepass([columns], [batch], lambda numbers: numbers)
    terms = objective.loss(columns, batch.with_given(found)).terms
    loss = sum(float(term.sum.detach()) / term.count for term in terms.values())
    assert loss == pytest.approx(supervised + contrast, abs=1e-12)
    assert loss == pytest.approx(CONTRAST, abs=1e-12)


def test_stable_alignment() -> None:
    ratings = [3.0, 7.0, 1.0, 5.0]
    replies = drawn(3, [2, 3, 4, 5], ratings)
    cost = [-sum(one.logps) / len(one.logps) for one in replies]
    hinge = sum(cost[1] - cost[n] + 10 * (7 - ratings[n]) / 7 for n in (0, 2, 3)) / 3
    assert hinge > 0
    found = value(StableAlignmentObjective(), [replies])
    assert found == pytest.approx(cost[1] + 0.2 * hinge, abs=1e-12)
    assert found == pytest.approx(STABLE_ALIGNMENT, abs=1e-12)


FIGA = 0.4468
QUARK = 0.6393106023458639
CONTRAST = 3.2871441476114227
STABLE_ALIGNMENT = 2.0750571428571427
