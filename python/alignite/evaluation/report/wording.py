"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
import time

NOTHING = "–"


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, thousands separated; 2.5e-5 when it is small; whole numbers whole."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.{digits - 1}e}"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.{digits - 1 - math.floor(math.log10(abs(value)))}f}"


def share(part: float, whole: float) -> str:
    """A percentage."""
    return f"{100 * part / whole:.1f}%" if whole > 0 else NOTHING


def duration(seconds: float) -> str:
    """12.3 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def moment(seconds: float | None) -> str:
    """A time since the epoch, in UTC: a report reads the same everywhere."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)) if seconds is not None else NOTHING
    except (OverflowError, ValueError, OSError):
        return NOTHING


def size(count: int | None) -> str:
    """Bytes as MB and the like, in powers of 1000."""
    if count is None:
        return NOTHING
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.3g} {units[0]}"


def plural(count: int, noun: str) -> str:
    """1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def option_value(value: object) -> str:
    """An option's value as a YAML file would say it."""
    if isinstance(value, list):
        return " ".join(option_value(item) for item in value) if value else "none"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
