"""Process reward models: the class of each step, told at its last token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignite.errors import ModelError, NumericsError, UsageError
from alignite.objectives.odd_rows import ALL_NEUTRAL, NOTHING
from alignite.objectives.pieces import WithoutState
from alignite.types import IGNORE, FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

NEUTRAL = ("good", "bad", "ignore")


class ProcessRewardObjective(WithoutState):
    """L = mean over rated steps of -log softmax(logits at the step's last token)[class].

    Ratings are -1, 0 and 1. Two classes, the default: 0 wrong and 1 right, where a neutral step counts as right
    (PRM800K, arXiv 2305.20050, appendix F.2: either reading gives about the same), as wrong, or not at all. Three
    classes: 0 wrong, 1 neutral, 2 right. A step sees what stands before it, and no label.

    Metrics over rated steps: ``accuracy`` (the likeliest class is the label); over steps of one class,
    ``accuracy_good`` and ``accuracy_bad``; ``mean_step_reward``, the probability of the last class.

    Args:
        num_classes: 2 or 3.
        neutral: ``good``, ``bad`` or ``ignore``; with three classes neutral is a class of its own.
        train_on_last_step_only: rate each solution by its last rated step: an outcome reward model.

    Raises:
        UsageError: an option out of range.
    """

    columns = frozenset({"policy.step_logits"})

    def __init__(self, num_classes: int = 2, *, neutral: str = "good", train_on_last_step_only: bool = False) -> None:
        if num_classes not in (2, 3):
            raise UsageError(f"there are {num_classes} classes", fix="give 2 or 3")
        if neutral not in NEUTRAL:
            raise UsageError(f"neutral is {neutral!r}", fix=f"it is one of {', '.join(NEUTRAL)}")
        self.num_classes, self.neutral, self.last_only = num_classes, neutral, train_on_last_step_only

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {ALL_NEUTRAL: NOTHING} if self.num_classes == 2 and self.neutral == "ignore" else {}

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Rated steps that are trained on."""
        return {"prm": float((self.targets(batch) != IGNORE).sum())}

    def targets(self, batch: FeedbackBatch) -> Tensor:
        """The class of each rated step, int64 (scored,); ``IGNORE`` where it is not trained on."""
        ratings = batch.labels[batch.labels != IGNORE].long()
        if self.num_classes == 3:
            targets = ratings + 1
        else:
            targets = (ratings > 0).long()
            targets[ratings == 0] = {"good": 1, "bad": 0, "ignore": IGNORE}[self.neutral]
        if self.last_only:
            later = batch.reply_of[1:] == batch.reply_of[:-1]
            targets[:-1][later] = IGNORE
        return targets

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """One term, ``prm``.

        Raises:
            ModelError: the head has another number of classes. NumericsError: a logit is not finite.
        """
        import torch

        logits = columns["policy.step_logits"]
        if logits.shape[1] != self.num_classes:
            raise ModelError(
                f"the head gives {logits.shape[1]} classes a step, not {self.num_classes}",
                fix="set num_classes to what the model has, or start from a model without a score head",
            )
        wrong = (~logits.isfinite()).any(1).nonzero()[:, 0].tolist()
        if wrong:
            reply = int(batch.reply_of[wrong[0]])
            raise NumericsError(
                f"the logits of a step are {logits[wrong[0]].tolist()}",
                where=batch.place(int(batch.records[reply])),
                fix="lower the learning rate, or look at the row",
            )
        targets = self.targets(batch)
        total = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
        used = targets != IGNORE
        right = used & (logits.detach().argmax(1) == targets)
        good, bad = targets == self.num_classes - 1, targets == 0
        rewards = logits.detach().softmax(1)[:, -1]

        def share(part: Tensor, of: Tensor) -> tuple[float, float]:
            return float(part[of].sum()), float(of.sum())

        metrics = {
            "accuracy": share(right, used),
            "accuracy_good": share(right, good),
            "accuracy_bad": share(right, bad),
            "mean_step_reward": share(rewards, used),
        }
        return LossOutput({"prm": Term(total, self.counts(batch)["prm"])}, metrics)
