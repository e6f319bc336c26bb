"""Conditions on a report that a pipeline can fail on."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from alignite.errors import ConfigError

_CONDITION = re.compile(r"\s*([A-Za-z_]+)\s*(>=|<=|>|<)\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*(%?)\s*")
_COMPARE = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}

# What a condition may name; of what a percentage of it is, where it can be one.
_NAMES: dict[str, str | None] = {
    "rows": None,
    "used": "rows",
    "bad": "rows",
    "dropped": "rows",
    "held_out": "rows",
    "control_text": "rows",
    "noticed": "rows",
    "records": None,
    "truncated": "records",
    "dropped_records": None,
    "tokens": None,
    "scored_tokens": "tokens",
    "lost_labels": "scored_tokens",
    "windows": None,
    "longest": None,
    "fill": "windows' room",
}


def failures(report: Mapping[str, Any], conditions: Sequence[str]) -> list[str]:
    """The conditions that hold for a report, each with its value.

    Args:
        report: of a prepared set.
        conditions: such as ``dropped>1%``: a name of the report, ``>``, ``<``, ``>=`` or ``<=``, and a number or a
            percentage: of the rows, of the records for ``truncated``, of the tokens for ``scored_tokens``, of the
            windows' room for ``fill``. The value of ``dropped`` and ``truncated`` is the sum over their reasons.

    Raises:
        ConfigError: a condition cannot be read, names nothing that a report has, or asks for a percentage of what has
            none.
    """
    found = []
    for condition in conditions:
        name, compare, limit, percent = parse_condition(condition)
        value = _value(report.get(name))
        whole = _NAMES[name]
        shown = f"{value:g}"
        if percent and name == "fill":
            value, shown = 100 * value, f"{100 * value:.4g}%"
        elif percent and whole is not None:
            value = 100 * value / max(_value(report.get(whole)), 1)
            shown = f"{shown}, {value:.3g}% of the {whole.replace('_', ' ')}"
        if _COMPARE[compare](value, limit):
            found.append(f"{condition.strip()}: {name} is {shown}")
    return found


def parse_condition(condition: str) -> tuple[str, str, float, bool]:
    """A condition as (name, comparison, number, whether it is a percentage).

    Raises:
        ConfigError: it cannot be read, or names nothing that a report has.
    """
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ConfigError(
            f"fail_if is {condition!r}", fix="write a name, >, <, >= or <=, and a number or a share: dropped>1%"
        )
    name, percent = match[1], match[4] == "%"
    if name not in _NAMES:
        near = get_close_matches(name.lower(), _NAMES, 1, 0.6)
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"fail_if names {name!r}", fix=f"{meant}the report has {', '.join(_NAMES)}")
    if percent and _NAMES[name] is None:
        shares = ", ".join(known for known, whole in _NAMES.items() if whole)
        raise ConfigError(
            f"fail_if is {condition!r}, and {name} is a share of nothing",
            fix=f"write a number without %; shares are {shares}",
        )
    return name, match[2], float(match[3]), percent


def _value(value: Any) -> float:
    if isinstance(value, Mapping):
        return float(value["count"]) if "count" in value else float(sum(entry["count"] for entry in value.values()))
    return float(value or 0)
