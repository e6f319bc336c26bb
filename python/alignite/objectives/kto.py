"""Kahneman-Tversky optimization: learning from replies that are good or bad, not compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from alignite.config.options import check_bound
from alignite.errors import UsageError
from alignite.objectives.pieces import WithoutState, reply_sums
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

_Z0 = "kto.z0"


@dataclass(frozen=True, kw_only=True)
class KTOObjective(WithoutState):
    """The mean over replies of w (1 - s(beta (r - z0))) for good ones, w (1 - s(beta (z0 - r))) for bad ones.

    r = log pi(y|x) - log pi_ref(y|x), summed over the reply's scored tokens. z0 is the same of each prompt with the
    next record's reply, averaged over the whole update and not below 0; it has no gradient.

    Args:
        beta: the strength of the reference.
        desirable_weight, undesirable_weight: w of good and of bad replies. The paper wants desirable_weight times the
            number of good replies to be 1 to 4/3 times undesirable_weight times the number of bad ones.

    Raises:
        ConfigError: an option is out of range.

    Source: KTO (arXiv 2402.01306, equation 8). TRL pairs replies within a batch of a device; here the whole update.
    """

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    needs_partners: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("beta", self.beta, 0, False)
        for name in ("desirable_weight", "undesirable_weight"):
            check_bound(name, getattr(self, name), 0, True)

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "reference.logp", "policy.entropy", "policy.mean_logit"})

    @property
    def prepass_columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "reference.logp"})

    def prepass(
        self,
        columns: Sequence[Mapping[str, Tensor]],
        batches: Sequence[FeedbackBatch],
        total: Callable[[dict[str, float]], dict[str, float]],
    ) -> Sequence[Mapping[str, Tensor]]:
        """z0 of the update, () float32, for each micro-batch."""
        sums = {"sum": 0.0, "count": 0.0}
        for found, batch in zip(columns, batches, strict=True):
            partner = batch.partner
            if partner is None:
                raise UsageError(
                    "a batch has no partner, of which KTO estimates the divergence from the reference",
                    fix="make it with alignite.data.partners.with_partners",
                )
            sums["sum"] += float(reply_sums(found["policy.logp"] - found["reference.logp"], partner).double().sum())
            sums["count"] += partner.num_replies
        sums = total(sums)
        z0 = max(sums["sum"] / max(sums["count"], 1.0), 0.0)
        return [{_Z0: found["policy.logp"].new_tensor(z0)} for found in columns]

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Replies."""
        return {"kto": float(batch.num_replies)}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """One term, ``kto``; metrics ``kl`` (z0) and, of good and bad replies, rewards, logps and logits."""
        import torch

        policy = reply_sums(columns["policy.logp"], batch)
        ratio = reply_sums(columns["policy.logp"] - columns["reference.logp"], batch)
        good = torch.from_numpy(batch.scores > 0.5).to(policy.device)
        sign = torch.where(good, 1.0, -1.0)
        weight = torch.where(good, self.desirable_weight, self.undesirable_weight)
        losses = weight * (1 - (self.beta * sign * (ratio - columns[_Z0])).sigmoid())
        rewards = self.beta * ratio.detach()
        metrics = {
            "kl": (float(columns[_Z0]) * batch.num_replies, float(batch.num_replies)),
            "entropy": (float(columns["policy.entropy"].sum()), float(len(batch.reply_of))),
        }
        for name, of in (("chosen", good), ("rejected", ~good)):
            count = float(of.sum())
            tokens = of[batch.reply_of]
            metrics[f"rewards/{name}"] = (float(rewards[of].sum()), count)
            metrics[f"logps/{name}"] = (float(policy[of].detach().sum()), count)
            metrics[f"logits/{name}"] = (float(columns["policy.mean_logit"][tokens].sum()), float(tokens.sum()))
        return LossOutput({"kto": Term(losses.sum(), float(batch.num_replies))}, metrics)
