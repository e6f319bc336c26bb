"""The charts' colours: legible on their paper, and apart from each other also without red, green or blue cones."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from alignite.evaluation.report import charts

# Machado, Oliveira and Fernandes 2009, severity 1.0; they act on linear sRGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Ottosson 2020: linear sRGB to OKLab.
LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
APART = 0.08  # in OKLab, where 0.02 is just noticeable side by side


def schemes() -> dict[str, dict[str, str]]:
    here = Path(charts.__file__).parent
    blocks = [re.findall(r":root \{(.*?)\}", (here / name).read_text(), re.DOTALL) for name in ("base.css", "page.css")]
    light, dark = ("".join(parts) for parts in zip(*blocks, strict=True))
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text)) for name, text in (("light", light), ("dark", dark))
    }


def linear(colour: str) -> NDArray[np.float64]:
    value = np.array([int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    found: NDArray[np.float64] = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return found


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_legible_and_stay_apart(scheme: str) -> None:
    colours = schemes()[scheme]
    series = [colours[f"c{slot}"] for slot in range(charts.SLOTS)]
    assert all(contrast(colour, colours["paper"]) >= 3 for colour in series)  # WCAG 1.4.11, graphical objects
    assert all(contrast(colours[name], colours["paper"]) >= 4.5 for name in ("ink", "soft", "good", "warning", "bad"))
    for vision in VISION.values():
        seen = [LAB @ np.cbrt(LMS @ np.clip(vision @ linear(colour), 0, 1)) for colour in series]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= APART
