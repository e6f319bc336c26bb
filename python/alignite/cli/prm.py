"""``alignite prm``"""

from __future__ import annotations

from collections.abc import Sequence

from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config import PRMConfig


def run(argv: Sequence[str]) -> int:
    """Train a process reward model; prints what became of the rows and where the run ended."""
    config, as_json = parse(
        PRMConfig, "alignite prm", "Train a process reward model on solutions whose steps are rated.", argv
    )
    check(config)

    from alignite.trainers.reward import PRMTrainer

    return train(PRMTrainer(args=config), as_json)
