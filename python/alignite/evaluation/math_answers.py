"""Whether a mathematical answer is right, by the math-verify library."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from alignite.errors import DataError, ResourceError


def grade_answer(solution: str, truth: str) -> bool:
    """Whether a solution's final answer equals the true one as mathematics: 0.5 is 1/2, \\frac12 and 50\\%.

    A GSM8K line ``#### 18`` or ``A: 18`` names the answer; otherwise math-verify looks for it (boxed first, then the
    last expression). An answer that cannot be read is wrong. Of one expression it gives up after five seconds, but only
    in the main thread, where it can.

    Raises:
        ResourceError: math-verify is not installed.
    """
    return bool(_library().verify(parse_answer(truth), parse_answer(solution), timeout_seconds=_seconds()))


def graded_row(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    """A row of completions as a ranking: 1 for those that end with the row's true answer, 0 for the others.

    Raises:
        DataError: the row has no list of texts, or no answer that can be read. ResourceError: math-verify is not
            installed.
    """
    truth, completions = row.get(column), row.get("completions")
    if isinstance(truth, int | float) and not isinstance(truth, bool):
        truth = str(truth)
    if not isinstance(truth, str) or not parse_answer(truth):
        raise DataError(
            f"column {column!r} holds no answer", why=f"it is {truth!r:.60}", fix="give a number or formula"
        )
    if not isinstance(completions, list) or not all(isinstance(text, str) for text in completions):
        raise DataError("completions is no list of texts", fix="give the solutions to grade")
    return {**row, "scores": [float(grade_answer(text, truth)) for text in completions]}


def parse_answer(text: str) -> list[Any]:
    """What math-verify reads as a text's answer; empty when it finds none.

    Raises:
        ResourceError: math-verify is not installed.
    """
    library = _library()
    named = re.findall(r"^(?:####|A:)[ \t]*(.+?)\s*$", text, flags=re.MULTILINE)
    answer = str(named[-1] if named else text).strip()
    if _is_bare_latex(answer):
        found: list[Any] = library.parse(f"${answer}$", parsing_timeout=_seconds())
        if found:
            return found
    found = library.parse(answer, parsing_timeout=_seconds())
    return found


def _is_bare_latex(text: str) -> bool:
    """A formula without the delimiters by which the library tells it from prose, such as \\frac12."""
    marked = any(mark in text for mark in ("$", "\\(", "\\[", "\\boxed"))
    return "\\" in text and not marked and re.search(r"(?:^|\s)[A-Za-z]{2,}(?:\s|$)", text) is None


def _seconds() -> int | None:
    return 5 if threading.current_thread() is threading.main_thread() else None


def _library() -> Any:
    try:
        return import_module("math_verify")
    except ImportError as error:
        raise ResourceError(
            "math-verify is not installed", why=str(error), fix='pip install "math-verify[antlr4_13_2]"'
        ) from error
