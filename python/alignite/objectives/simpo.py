"""Simple preference optimization: length-normalised and without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignite.config.options import check_bound
from alignite.objectives.odd_rows import MARGIN_UNREAD, P_UNREAD, PAIRS_ONLY
from alignite.objectives.pieces import ReplyPairs, WithoutState, pair_count, pair_metrics
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SimPOObjective(WithoutState):
    """The mean over prompts of the mean over a prompt's pairs of -log s(beta (a_w - a_l) - gamma).

    a_y is the mean log-probability of a reply's scored tokens; beta a_y are the rewards of the metrics.

    Args:
        beta: the scale of the rewards. ``simpo_gamma``: the margin by which they are to differ.

    Raises:
        ConfigError: an option is out of range.

    Source: SimPO (arXiv 2405.14734, equation 6).
    """

    beta: float = 2.0
    simpo_gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("beta", self.beta, 0, False)
        check_bound("simpo_gamma", self.simpo_gamma, 0, True)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**PAIRS_ONLY, **P_UNREAD, **MARGIN_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "policy.entropy", "policy.mean_logit"})

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Records with a pair."""
        return {"simpo": pair_count(batch)}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """One term, ``simpo``; metrics as DPO's."""
        from torch.nn.functional import logsigmoid

        pairs = ReplyPairs.of(columns["policy.logp"], batch)
        z = self.beta * pairs.difference(pairs.means) - self.simpo_gamma
        term = Term(-(logsigmoid(z) * pairs.shares).sum(), pair_count(batch))
        return LossOutput({"simpo": term}, pair_metrics(self.beta * pairs.means, pairs.pairs, columns, batch))
