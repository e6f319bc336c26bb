"""Reward models as scorers of text: from folders and adapters, of replies and of steps, several as one."""

from __future__ import annotations

from alignite.scoring.combined_reward import CombinedReward, combine_scores
from alignite.scoring.process_reward import ProcessRewardModel
from alignite.scoring.reward import RewardModel

__all__ = ["CombinedReward", "ProcessRewardModel", "RewardModel", "combine_scores"]
