"""Questionnaires and the scale of five."""

from __future__ import annotations

import numpy as np
import pytest

from alignite.errors import DataError, UsageError
from alignite.feedback.questions import HARD_LEVELS, Question, Questionnaire, level_to_p, rows_from_levels

ON_TOPIC = Question("topic", "Does it answer?", {"no": 0.0, "partly": 0.5, "yes": 1.0}, "helpful", weight=3.0)
CLEAR = Question("clear", "Is it clear?", {"no": 0.0, "yes": 1.0}, "helpful")
CITED = Question("cited", "Are sources right?", {"wrong": -1.0, "none": 0.0, "right": 1.0}, "honest")


def test_options_become_criteria_and_a_total() -> None:
    sheet = Questionnaire([ON_TOPIC, CLEAR, CITED], {"helpful": 1.0, "honest": 3.0})
    answers = [{"topic": "yes", "clear": "no", "cited": "right"}, {"topic": "partly", "clear": "yes", "cited": "wrong"}]
    scores = sheet.scores(answers)
    assert sheet.criteria == ("helpful", "honest")
    assert scores.tolist() == [[0.75, 1.0], [0.625, -1.0]]
    assert sheet.totals(scores).tolist() == [(0.75 + 3) / 4, (0.625 - 3) / 4]


def test_questions_without_an_answer() -> None:
    sheet = Questionnaire([ON_TOPIC, CLEAR, CITED])
    with pytest.raises(DataError, match="'cited' has the answer None"):
        sheet.scores([{"topic": "yes", "clear": "no"}])
    scores = sheet.scores([{"topic": "yes"}, {}], missing="ignore")
    assert scores[0, 0] == 1.0
    assert np.isnan(scores[0, 1])
    totals = sheet.totals(scores)
    assert totals[0] == 1.0
    assert np.isnan(totals[1])


def test_unknown_options_and_questions() -> None:
    sheet = Questionnaire([CLEAR])
    with pytest.raises(DataError, match="answer 'maybe'") as caught:
        sheet.scores([{"clear": "yes"}, {"clear": "maybe"}])
    assert caught.value.where == "answers 1"
    with pytest.raises(DataError, match="no question 'clean'"):
        sheet.scores([{"clean": "yes"}])
    for questions, weights in (
        ([], None),
        ([CLEAR, CLEAR], None),
        ([Question("x", "?", {"one": 1.0}, "c")], None),
        ([Question("x", "?", {"a": 1.0, "b": float("nan")}, "c")], None),
        ([CLEAR], {"honest": 1.0}),
        ([CLEAR], {"helpful": 0.0}),
    ):
        with pytest.raises(UsageError):
            Questionnaire(questions, weights)


def test_levels_become_soft_labels_and_ties_stay() -> None:
    rows = [{"prompt": "q", "first": "a", "second": "b", "level": level} for level in range(5)]
    made, bad = rows_from_levels(rows)
    assert [(row["chosen"], row["p"]) for row in made] == [("a", 1), ("a", 0.75), ("a", 0.5), ("b", 0.75), ("b", 1)]
    assert bad == {}
    assert [row["p"] for row in rows_from_levels(rows, levels=HARD_LEVELS)[0]] == [1.0, 1.0, 0.5, 1.0, 1.0]
    assert [level_to_p(level) for level in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
