"""Contrastive preference optimization: DPO without a reference, and imitation of the chosen replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignite.config.options import check_bound, check_share
from alignite.errors import ConfigError
from alignite.objectives.odd_rows import MARGIN_UNREAD, P_UNREAD, PAIRS_ONLY
from alignite.objectives.pieces import ReplyPairs, WithoutState, as_tensor, pair_count, pair_metrics, reply_lengths
from alignite.objectives.ranking import paired_best
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

CPO_LOSSES = ("sigmoid", "hinge", "ipo")


@dataclass(frozen=True, kw_only=True)
class CPOObjective(WithoutState):
    """A loss of beta (log pi(y_w|x) - log pi(y_l|x)), plus cpo_alpha times the best replies' mean NLL a token.

    The loss is averaged over a prompt's pairs, then over prompts: ``sigmoid`` -(1 - e) log s(z) - e log s(-z),
    ``hinge`` max(0, 1 - z), ``ipo`` (d - 1/(2 beta))^2 on the difference d of per-token means.

    Args:
        beta: the scale. ``loss_type``: sigmoid, hinge or ipo. ``label_smoothing``: e of ``sigmoid``.
        cpo_alpha: the weight of the imitation.

    Raises:
        ConfigError: an option is out of range.

    Source: CPO (arXiv 2401.08417, equations 4 and 5).
    """

    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    cpo_alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type not in CPO_LOSSES:
            raise ConfigError(f"there is no loss_type {self.loss_type!r}", fix=f"it is one of {', '.join(CPO_LOSSES)}")
        check_bound("beta", self.beta, 0, False)
        check_share("label_smoothing", self.label_smoothing, 0.5)
        check_bound("cpo_alpha", self.cpo_alpha, 0, True)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**PAIRS_ONLY, **P_UNREAD, **MARGIN_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "policy.entropy", "policy.mean_logit"})

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Records with a pair; for ``nll`` the chosen replies' scored tokens."""
        tokens = reply_lengths(batch).double().cpu().numpy() * paired_best(batch)
        return {"cpo": pair_count(batch), "nll": float(tokens.sum())}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``cpo`` and ``nll``; metrics as DPO's."""
        from torch.nn.functional import logsigmoid

        pairs = ReplyPairs.of(columns["policy.logp"], batch)
        z = self.beta * pairs.difference(pairs.sums)
        if self.loss_type == "hinge":
            losses = (1 - z).relu()
        elif self.loss_type == "ipo":
            losses = (pairs.difference(pairs.means) - 1 / (2 * self.beta)).square()
        else:
            losses = -(1 - self.label_smoothing) * logsigmoid(z) - self.label_smoothing * logsigmoid(-z)
        counts = self.counts(batch)
        terms = {
            "cpo": Term((losses * pairs.shares).sum(), counts["cpo"]),
            "nll": Term(-(pairs.sums * as_tensor(paired_best(batch), pairs.sums)).sum(), counts["nll"], self.cpo_alpha),
        }
        rewards = pairs.means if self.loss_type == "ipo" else pairs.sums
        return LossOutput(terms, pair_metrics(self.beta * rewards, pairs.pairs, columns, batch))
