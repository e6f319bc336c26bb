"""The Rust draws: mixtures, curricula, samples."""

from __future__ import annotations

from alignite._core import Curriculum, Mixture, SampleSteps, count_rows, sample_order

__all__ = ["Curriculum", "Mixture", "SampleSteps", "count_rows", "sample_order"]
