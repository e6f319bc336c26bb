"""Intervals of shares; needs no torch."""

from __future__ import annotations

import math


def wilson_interval(right: float, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval of a share that a normal test at ``z`` does not refuse; 0 to 1 when there is nothing."""
    if total == 0:
        return 0.0, 1.0
    p, over = right / total, 1 + z * z / total
    middle = p + z * z / (2 * total)
    reach = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return max((middle - reach) / over, 0.0), min((middle + reach) / over, 1.0)
