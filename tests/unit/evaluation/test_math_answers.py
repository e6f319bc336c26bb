"""Answers are right when they are equal as mathematics."""

from __future__ import annotations

import sys

import pytest

from alignite.errors import ResourceError
from alignite.evaluation.math_answers import grade_answer, parse_answer


@pytest.mark.parametrize(
    ("solution", "truth", "right"),
    [
        ("3 * 6 = 18\n#### 1,800", "1800", True),
        ("She makes 18.\nA: 18", "9 * 2 = 18\n#### 18", True),
        ("She makes 26.\nA: 26", "#### 18", False),
        (r"so it is $\boxed{\frac{1}{2}}$", r"\frac12", True),
        ("0.5", r"\frac{1}{2}", True),
        (r"The answer is \(3\sqrt{2}\).", r"3\sqrt{2}", True),
        (r"The answer is \(2\sqrt{3}\).", r"3\sqrt{2}", False),
        ("I do not know", "3", False),
        ("", "3", False),
    ],
)
def test_answers(solution: str, truth: str, right: bool) -> None:
    assert grade_answer(solution, truth) is right


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ResourceError, match="math-verify is not installed") as error:
        parse_answer("3")
    assert "pip install" in str(error.value)
