"""Objectives: named columns in, loss terms and metrics out. They know no model, adapter or file."""

from __future__ import annotations

from alignite.objectives.sft import SFTObjective

__all__ = ["SFTObjective"]
