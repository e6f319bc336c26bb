"""``alignite reward``"""

from __future__ import annotations

from collections.abc import Sequence

from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config import RewardConfig


def run(argv: Sequence[str]) -> int:
    """Train a reward model on pairs and rankings; prints what became of the rows and where the run ended."""
    config, as_json = parse(RewardConfig, "alignite reward", "Train a reward model on pairs and rankings.", argv)
    check(config)

    from alignite.trainers.reward import RewardTrainer

    return train(RewardTrainer(args=config), as_json)
