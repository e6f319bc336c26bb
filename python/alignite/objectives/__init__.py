"""Objectives: named columns in, loss terms and metrics out. They know no model, adapter or file."""

from __future__ import annotations

from alignite.objectives.aot import AOTObjective
from alignite.objectives.coh import ChainOfHindsight, CoHObjective
from alignite.objectives.contrast import InstructionContrastObjective
from alignite.objectives.cpo import CPOObjective
from alignite.objectives.dpo import DPOObjective
from alignite.objectives.figa import FIGAObjective
from alignite.objectives.hir import HindsightRelabel, HIRObjective
from alignite.objectives.kto import KTOObjective
from alignite.objectives.orpo import ORPOObjective
from alignite.objectives.pieces import sequence_loss
from alignite.objectives.prm import ProcessRewardObjective
from alignite.objectives.quark import QuarkObjective
from alignite.objectives.reward import RewardObjective
from alignite.objectives.rrhf import RRHFObjective
from alignite.objectives.sft import SFTObjective
from alignite.objectives.simpo import SimPOObjective
from alignite.objectives.slic import SLiCObjective
from alignite.objectives.stable_alignment import StableAlignmentObjective

__all__ = [
    "AOTObjective",
    "CPOObjective",
    "ChainOfHindsight",
    "CoHObjective",
    "DPOObjective",
    "FIGAObjective",
    "HIRObjective",
    "HindsightRelabel",
    "InstructionContrastObjective",
    "KTOObjective",
    "ORPOObjective",
    "ProcessRewardObjective",
    "QuarkObjective",
    "RRHFObjective",
    "RewardObjective",
    "SFTObjective",
    "SLiCObjective",
    "SimPOObjective",
    "StableAlignmentObjective",
    "sequence_loss",
]
