"""alignite adapts large language models: exact data, one training loop, adapters, quantization.

The names below are loaded when they are first used, so that importing the
package costs neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignite.config import DPOConfig, KTOConfig, PRMConfig, RewardConfig, RRHFConfig, SFTConfig, SLiCConfig
    from alignite.errors import AligniteError
    from alignite.peft import LoraConfig
    from alignite.scoring import ProcessRewardModel, RewardModel
    from alignite.trainers.methods import DPOTrainer, KTOTrainer, RRHFTrainer, SLiCTrainer
    from alignite.trainers.preference import PreferenceTrainer
    from alignite.trainers.reward import PRMTrainer, RewardTrainer
    from alignite.trainers.sft import SFTTrainer
    from alignite.types import Callback, RunState

__version__ = "0.1.0"

_HOMES = {
    "AligniteError": "alignite.errors",
    "Callback": "alignite.types",
    "DPOConfig": "alignite.config",
    "DPOTrainer": "alignite.trainers.methods",
    "KTOConfig": "alignite.config",
    "KTOTrainer": "alignite.trainers.methods",
    "LoraConfig": "alignite.peft",
    "PRMConfig": "alignite.config",
    "PRMTrainer": "alignite.trainers.reward",
    "PreferenceTrainer": "alignite.trainers.preference",
    "RRHFConfig": "alignite.config",
    "RRHFTrainer": "alignite.trainers.methods",
    "ProcessRewardModel": "alignite.scoring",
    "RewardConfig": "alignite.config",
    "RewardModel": "alignite.scoring",
    "RewardTrainer": "alignite.trainers.reward",
    "RunState": "alignite.types",
    "SFTConfig": "alignite.config",
    "SFTTrainer": "alignite.trainers.sft",
    "SLiCConfig": "alignite.config",
    "SLiCTrainer": "alignite.trainers.methods",
}
_ROOMS = ("config", "data", "errors", "feedback", "objectives", "peft", "scoring", "types")

__all__ = [
    "AligniteError",
    "Callback",
    "DPOConfig",
    "DPOTrainer",
    "KTOConfig",
    "KTOTrainer",
    "LoraConfig",
    "PRMConfig",
    "PRMTrainer",
    "PreferenceTrainer",
    "ProcessRewardModel",
    "RRHFConfig",
    "RRHFTrainer",
    "RewardConfig",
    "RewardModel",
    "RewardTrainer",
    "RunState",
    "SFTConfig",
    "SFTTrainer",
    "SLiCConfig",
    "SLiCTrainer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"alignite.{name}")
    raise AttributeError(f"module 'alignite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
