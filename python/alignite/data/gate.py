"""Conditions on a report that a pipeline can fail on."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignite.errors import ConfigError

_CONDITION = re.compile(r"\s*([a-z_]+)\s*(>=|<=|>|<)\s*([0-9]+(?:\.[0-9]+)?)\s*(%?)\s*")
_COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}


def failures(report: Mapping[str, Any], conditions: Sequence[str]) -> list[str]:
    """The conditions that hold for a report, each with its value.

    Args:
        report: of a prepared set.
        conditions: such as ``dropped>1%``: a name of the report, ``>``, ``<``, ``>=`` or ``<=``, and a number, or a
            percentage of the rows. The value of ``dropped`` and ``truncated`` is the sum over their reasons.

    Raises:
        ConfigError: a condition cannot be read, or names nothing that the report has.
    """
    found = []
    for condition in conditions:
        name, compare, limit, percent = parse_condition(condition)
        value = _value(report, name)
        if value is None:
            names = sorted(key for key in report if _value(report, key) is not None)
            raise ConfigError(f"fail_if names {name!r}", fix=f"the report has {', '.join(names)}")
        share = 100 * value / max(report["rows"], 1) if percent else value
        if _COMPARE[compare](share, limit):
            found.append(
                f"{condition.strip()}: {name} is {value:g}" + (f", {share:.3g}% of the rows" if percent else "")
            )
    return found


def parse_condition(condition: str) -> tuple[str, str, float, bool]:
    """A condition as (name, comparison, number, whether it is a percentage of the rows).

    Raises:
        ConfigError: it cannot be read.
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ConfigError(
            f"fail_if is {condition!r}", fix="write a name, >, <, >= or <=, and a number or a share: dropped>1%"
        )
    return match[1], match[2], float(match[3]), match[4] == "%"


def _value(report: Mapping[str, Any], name: str) -> float | None:
    value = report.get(name)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping) and "count" in value:
        return float(value["count"])
    if isinstance(value, Mapping) and all(isinstance(entry, Mapping) and "count" in entry for entry in value.values()):
        return float(sum(entry["count"] for entry in value.values()))
    return None
