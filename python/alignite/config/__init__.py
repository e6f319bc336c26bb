"""The configuration of a run: one dataclass a method, one field an option.

The command line, ``--config`` files and Python share these fields: a field's
name is the option's name, its metadata is the option's help, and values are
checked here, once.
"""

from __future__ import annotations

from alignite.config.clean import CleanOptions
from alignite.config.commands import (
    DoctorConfig,
    GenerateConfig,
    ImportGgufConfig,
    MergeConfig,
    PreviewConfig,
    ReportConfig,
)
from alignite.config.data import DataOptions
from alignite.config.data_commands import ConvertConfig, ExportConfig, InstructConfig, MixConfig, PrepareConfig
from alignite.config.options import Options, coerce, config_class, option, unknown_option
from alignite.config.preference import (
    CoHConfig,
    ContrastConfig,
    CPOConfig,
    DPOConfig,
    FIGAConfig,
    HIRConfig,
    KTOConfig,
    ORPOConfig,
    PreferenceConfig,
    PRMConfig,
    QuarkConfig,
    ReferenceOptions,
    RewardConfig,
    RRHFConfig,
    SimPOConfig,
    SLiCConfig,
    StableAlignmentConfig,
)
from alignite.config.scores import EvaluateConfig, ScoreConfig, ScoredDataOptions, ScorerOptions, ServeConfig
from alignite.config.training import SFTConfig, TrainingConfig

__all__ = [
    "CPOConfig",
    "CleanOptions",
    "CoHConfig",
    "ContrastConfig",
    "ConvertConfig",
    "DPOConfig",
    "DataOptions",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FIGAConfig",
    "GenerateConfig",
    "HIRConfig",
    "ImportGgufConfig",
    "InstructConfig",
    "KTOConfig",
    "MergeConfig",
    "MixConfig",
    "ORPOConfig",
    "Options",
    "PRMConfig",
    "PreferenceConfig",
    "PrepareConfig",
    "PreviewConfig",
    "QuarkConfig",
    "RRHFConfig",
    "ReferenceOptions",
    "ReportConfig",
    "RewardConfig",
    "SFTConfig",
    "SLiCConfig",
    "ScoreConfig",
    "ScoredDataOptions",
    "ScorerOptions",
    "ServeConfig",
    "SimPOConfig",
    "StableAlignmentConfig",
    "TrainingConfig",
    "coerce",
    "config_class",
    "option",
    "unknown_option",
]
