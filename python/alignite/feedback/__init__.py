"""Data about preferences: rankings, ratings, who rates well, and feedback that models give. Needs no torch."""

from __future__ import annotations

from alignite.feedback.annotate import AnnotationReport, PromptedJudge, WinRate, annotate, win_rate
from alignite.feedback.dawid_skene import DawidSkene, dawid_skene, soft_labels
from alignite.feedback.questions import Question, Questionnaire, rows_from_levels
from alignite.feedback.rankings import Comparisons, elo, pairs_from_rankings, rows_from_rankings
from alignite.feedback.raters import Ratings, report, screen, super_raters, with_hidden_gold
from alignite.feedback.revision import Constitution, Principle, revise, sft_rows
from alignite.feedback.rules import Rubric, Rule, RuleJudge, check_rules, refusal_rubric, sparrow_rerank
from alignite.feedback.strengths import Strengths, bradley_terry, plackett_luce

__all__ = [
    "AnnotationReport",
    "Comparisons",
    "Constitution",
    "DawidSkene",
    "Principle",
    "PromptedJudge",
    "Question",
    "Questionnaire",
    "Ratings",
    "Rubric",
    "Rule",
    "RuleJudge",
    "Strengths",
    "WinRate",
    "annotate",
    "bradley_terry",
    "check_rules",
    "dawid_skene",
    "elo",
    "pairs_from_rankings",
    "plackett_luce",
    "refusal_rubric",
    "report",
    "revise",
    "rows_from_levels",
    "rows_from_rankings",
    "screen",
    "sft_rows",
    "soft_labels",
    "sparrow_rerank",
    "super_raters",
    "win_rate",
    "with_hidden_gold",
]
