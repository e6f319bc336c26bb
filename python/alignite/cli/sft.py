"""``alignite sft``"""

from __future__ import annotations

from collections.abc import Sequence

from alignite.cli.options import parse
from alignite.cli.train import check, train
from alignite.config import SFTConfig


def run(argv: Sequence[str]) -> int:
    """Fine-tune; prints what became of the rows and where the run ended."""
    what = "Fine-tune a model on what assistants say in conversations."
    config, as_json = parse(SFTConfig, "alignite sft", what, argv)
    check(config)

    from alignite.trainers.sft import SFTTrainer

    return train(SFTTrainer(args=config), as_json)
