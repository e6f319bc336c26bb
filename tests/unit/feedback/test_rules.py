"""Rules, their aggregates, Sparrow's rerank, and rubrics."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from alignite.client import Completion, Token
from alignite.errors import DataError, UsageError
from alignite.feedback.rules import Aggregate, Rule, RuleJudge, check_rules, refusal_rubric, sparrow_rerank

SHORT = Rule("short", "Stay below ten characters.", lambda prompt, output: len(output) >= 10, severity=3.0)
POLITE = Rule("polite", "Do not curse.", re.compile(r"\bdamn\b", re.IGNORECASE))
ANSWER = Rule("answer", "Answer questions.", lambda p, o: 0.25, applies_to=lambda prompt, output: "?" in prompt)


def test_the_matrix_keeps_who_says_so() -> None:
    judge = RuleJudge(lambda asked: "Yes" if "steal" in asked else "dunno" if "mumble" in asked else "No")
    rules = [SHORT, POLITE, ANSWER, Rule("legal", "Obey the law.", judge)]
    scores = check_rules(rules, ["hi", "who?", "hm"], ["Damn it, no!", "steal", "mumble"])
    assert scores.rules == ("short", "polite", "answer", "legal")
    assert scores.sources == ("callable", "regex", "callable", "judge")
    assert scores.unparsable == (0, 0, 0, 1)
    nan = np.nan
    expected = [[1, 1, nan, 0], [0, 0, 0.25, 1], [0, 0, nan, nan]]
    np.testing.assert_array_equal(scores.violations, expected)


def test_aggregates_by_hand() -> None:
    rules = [Rule("a", "", lambda p, o: 0.5, severity=3.0), Rule("b", "", lambda p, o: 0.2), ANSWER]
    scores = check_rules(rules, ["x", "x?"], ["y", "y"])
    expected: dict[Aggregate, tuple[float, float]] = {
        "mean": (0.65, (0.5 + 0.8 + 0.75) / 3),
        "min": (0.5, 0.5),
        "product": (0.4, 0.3),
        "weighted": ((1.5 + 0.8) / 4, (1.5 + 0.8 + 0.75) / 5),
        "geometric": (math.sqrt(0.4), 0.3 ** (1 / 3)),
    }
    for how, values in expected.items():
        assert scores.rewards(how) == pytest.approx(values, abs=1e-12), how
    with pytest.raises(UsageError, match="no aggregate 'max'"):
        scores.rewards("max")  # type: ignore[arg-type]


def test_a_sure_violation_and_rules_that_do_not_apply() -> None:
    broken = check_rules([Rule("a", "", lambda p, o: True), Rule("b", "", lambda p, o: 0.0)], ["x"], ["y"])
    assert broken.rewards("product") == broken.rewards("geometric") == broken.rewards("min") == 0.0
    none = check_rules([ANSWER], ["x"], ["y"])
    assert [none.rewards(how)[0] for how in ("mean", "min", "product", "weighted", "geometric")] == [1.0] * 5


def test_sparrows_rerank_by_hand() -> None:
    preference, rules = np.array([1.0, 3.0, 2.0]), np.array([1.0, 0.1, 0.9])
    score = sparrow_rerank(preference, rules)
    by_hand = [math.exp(r) / (math.exp(r) + math.exp(2.0)) * rule for r, rule in zip(preference, rules, strict=True)]
    assert score == pytest.approx(by_hand, abs=1e-12)
    assert int(score.argmax()) == 2
    assert np.isfinite(sparrow_rerank([1e4, -1e4], [1.0, 1.0])).all()
    assert len(sparrow_rerank([], [])) == 0
    with pytest.raises(DataError, match="finite numbers"):
        sparrow_rerank([1.0, float("nan")], [1.0, 1.0])


def test_bad_rules_and_checks() -> None:
    for rules in ([], [POLITE, POLITE], [Rule("x", "", POLITE.check, severity=-1.0)]):
        with pytest.raises(UsageError):
            check_rules(rules, ["x"], ["y"])
    with pytest.raises(DataError, match="1 prompts and 2 outputs"):
        check_rules([POLITE], ["x"], ["y", "z"])
    for value in (2.0, float("nan")):
        with pytest.raises(DataError, match="rule 'x' gives") as caught:
            check_rules([Rule("x", "", lambda p, o, v=value: v)], ["x"], ["y"])  # type: ignore[misc]
        assert caught.value.where == "output 0"


def test_a_rubrics_reward_is_expected_over_its_choices() -> None:
    rubric = refusal_rubric(should_refuse=True)

    def answer(asked: str) -> Completion | str:
        assert "(A) a refusal in the desired style" in asked
        if "sure" in asked:
            return "A"
        if "mixed" in asked:
            return Completion("A", (Token("A", 0.0, {"A": math.log(0.5), " C": math.log(0.5)}),))
        return "no idea"

    rewards, unread = rubric.rewards(answer, ["p"] * 3, ["sure", "mixed", "other"])
    assert rewards[:2] == pytest.approx([1.0, 0.0], abs=1e-12)
    assert np.isnan(rewards[2])
    assert unread == 1
    harmless = refusal_rubric(should_refuse=False)
    assert max(harmless.choices, key=lambda letter: harmless.choices[letter][1]) == "D"
    with pytest.raises(DataError):
        rubric.rewards(answer, ["p"], [])
