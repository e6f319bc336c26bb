"""Bad rankings, ratings, comparisons and judges: counted with reason and place, or an error that shows the row."""

from __future__ import annotations

from typing import Any

import pytest

from alignite.errors import DataError
from alignite.feedback.annotate import PromptedJudge, annotate
from alignite.feedback.questions import rows_from_levels
from alignite.feedback.rankings import Comparisons, pairs_from_rankings, rows_from_rankings
from alignite.feedback.raters import Ratings

NAN = float("nan")


def counted(bad: dict[str, Any]) -> dict[str, tuple[int, list[str]]]:
    return {reason: (count.count, count.examples) for reason, count in bad.items()}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "completions": ["a"], "scores": [1]}, "the ranking has 1 replies"),
        ({"prompt": "q", "completions": [], "scores": []}, "the ranking has 0 replies"),
        ({"prompt": "q", "completions": ["a", "b"], "scores": [1]}, "not one score for each reply"),
        ({"prompt": "q", "completions": ["a", "b"], "scores": [1, NAN]}, "a score is not finite"),
        ({"prompt": "q", "completions": ["a", "b"], "scores": [1, "2"]}, "a score is not a number"),
        ({"prompt": "q", "completions": ["a", "b"], "scores": [True, False]}, "a score is not a number"),
        ({"prompt": "q", "completions": ["a", "a"], "scores": [1, 2]}, "the two replies are the same"),
        ({"prompt": "q", "completions": ["a", ""], "scores": [1, 2]}, "a reply is empty"),
        ({"prompt": "q", "scores": [1, 2]}, "no 'completions'"),
        ({"prompt": "q", "completions": ["a", "b"]}, "no 'scores'"),
    ],
)
def test_rankings(row: dict[str, Any], message: str) -> None:
    good = {"prompt": "q", "completions": ["a", "b"], "scores": [1, 2]}
    with pytest.raises(DataError, match=message) as caught:
        rows_from_rankings([good, row])
    assert str(caught.value.where).startswith("row 1")
    made, bad = rows_from_rankings([good, row, good, row], on_bad_row="skip")
    assert len(made) == 2
    ((reason, found),) = counted(bad).items()
    assert message in reason
    assert found[0] == 2
    assert [place.split(",")[0] for place in found[1]] == ["row 1", "row 3"]


def test_equal_replies_cost_their_pair_and_no_other() -> None:
    row = {"prompt": "q", "completions": ["a", "b", "a"], "scores": [1, 2, 3]}
    made, bad = rows_from_rankings([row], on_bad_row="skip")
    assert [(pair["chosen"], pair["rejected"]) for pair in made] == [("b", "a"), ("a", "b")]
    assert counted(bad) == {"the two replies are the same": (1, ["row 0, replies 2 and 0"])}


def test_only_ties() -> None:
    row = {"prompt": "q", "completions": ["a", "b"], "scores": [1, 1]}
    assert [made["p"] for made in rows_from_rankings([row])[0]] == [0.5]
    assert rows_from_rankings([row], ties="drop") == ([], {})
    with pytest.raises(DataError, match="not finite") as caught:
        pairs_from_rankings([[1.0, 2.0], [2.0, 3.0], [float("inf"), 1.0]])
    assert caught.value.where == "ranking 2"


@pytest.mark.parametrize("outcome", [NAN, 1.5, -1, "win", None])
def test_outcomes(outcome: Any) -> None:
    with pytest.raises(DataError, match="the outcome is") as caught:
        Comparisons.of([("a", "b", 1), ("a", "b", outcome)])
    assert caught.value.where == "comparison 1"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"rater": "r", "label": "x"}, "no 'item'"),
        ({"item": 1, "label": "x"}, "no 'rater'"),
        ({"item": 1, "rater": "r"}, "has not one of"),
        ({"item": 1, "rater": "r", "label": "x", "pair": 1}, "has not one of"),
        ({"item": [1], "rater": "r", "label": "x"}, "'item' is no name"),
        ({"item": 1, "rater": NAN, "label": "x"}, "'rater' is no name"),
        ({"item": 1, "rater": "r", "label": NAN}, "a label is no category"),
        ({"item": 1, "rater": "r", "label": ["x"]}, "a label is no category"),
        ({"item": 1, "rater": "r", "pair": 2}, "not 0, .5 or 1"),
        ({"item": 1, "rater": "r", "pair": "first"}, "not 0, .5 or 1"),
        ({"item": 1, "rater": "r", "pair": NAN}, "not 0, .5 or 1"),
        ({"item": 1, "rater": "r", "rank": [1]}, "the ranking has 1 replies"),
        ({"item": 1, "rater": "r", "rank": "12"}, "ranks are no list"),
        ({"item": 1, "rater": "r", "rank": [1, "b"]}, "a rank is not a number"),
        ({"item": 1, "rater": "r", "rank": [1, NAN]}, "a score is not finite"),
        ({"item": 1, "rater": "r", "pair": 1, "gold": "first"}, "not 0, .5 or 1"),
        ({"item": 0, "rater": "known", "label": "y"}, "rated the item before"),
        ({"item": 0, "rater": "r", "label": "x", "gold": "y"}, "another gold answer"),
        ({"item": 1, "rater": "stranger", "label": "x"}, "the rater is not known"),
    ],
)
def test_ratings(row: dict[str, Any], message: str) -> None:
    good = {"item": 0, "rater": "known", "label": "x", "gold": "x"}
    with pytest.raises(DataError, match=message) as caught:
        Ratings.of([good, row], known={"known", "r"})
    assert caught.value.where == "row 1"
    ratings = Ratings.of([good, row], known={"known", "r"}, on_bad_row="skip")
    assert len(ratings.label) == 1
    assert [found for found in counted(ratings.bad).values()] == [(1, ["row 1"])]


def test_no_ratings_at_all() -> None:
    for rows in ([], [{"item": 1}]):
        with pytest.raises(DataError, match="no ratings"):
            Ratings.of(rows, on_bad_row="skip")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "first": "a", "second": "b", "level": 5}, "no preference level 5"),
        ({"prompt": "q", "first": "a", "second": "b", "level": "1"}, "no preference level '1'"),
        ({"prompt": "q", "first": "a", "second": "b", "level": True}, "no preference level True"),
        ({"prompt": "q", "first": "a", "second": "a", "level": 1}, "replies are the same"),
        ({"prompt": "q", "first": "a", "level": 1}, "no 'second'"),
        ({"prompt": "q", "first": "a", "second": "b"}, "no 'level'"),
    ],
)
def test_levels(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_from_levels([row])
    made, bad = rows_from_levels([row], on_bad_row="skip")
    assert made == []
    assert [count for count, _ in counted(bad).values()] == [1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "first": "a"}, "the row has no 'second'"),
        ({"prompt": "q", "first": "a", "second": "a"}, "replies are the same"),
        ({"prompt": 3, "first": "a", "second": "b"}, "no text and no messages"),
        ({"prompt": [{"role": "user"}], "first": "a", "second": "b"}, "no text and no messages"),
    ],
)
def test_pairs_for_judges(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        annotate([row], lambda *_: 0.5)
    assert caught.value.where == "row 0"
    made, report = annotate([row], lambda *_: 0.5, on_bad_row="skip")
    assert (made, report.pairs) == ([], 0)
    assert [count for count, _ in counted(report.bad).values()] == [1]


@pytest.mark.parametrize("p", [NAN, 1.2, -0.1])
def test_judges_that_give_no_probability(p: float) -> None:
    pairs = [{"prompt": "q", "first": "a", "second": "b"}]
    with pytest.raises(DataError, match="the judge gives") as caught:
        annotate(pairs, lambda *_: p)
    assert caught.value.where == "row 0"


def test_a_judge_that_never_answers_leaves_nothing_and_says_so() -> None:
    pairs = [{"prompt": "q", "first": "a", "second": "b"}] * 3
    made, report = annotate(pairs, PromptedJudge(lambda prompt: "I would rather not."))
    assert made == []
    assert (report.pairs, report.unparsable) == (3, 3)
    assert report.position_bias != report.position_bias
    assert annotate([], lambda *_: 0.5)[1].pairs == 0
