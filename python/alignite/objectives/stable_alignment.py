"""Stable Alignment's contrastive loss: imitate the best rated reply, keep away from the others by how they rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignite.config.options import check_bound
from alignite.objectives.odd_rows import IMITATED, P_UNREAD
from alignite.objectives.pieces import (
    WithoutState,
    as_tensor,
    pair_metrics,
    positive_lengths,
    preference_pairs,
    record_count,
    reply_sums,
)
from alignite.objectives.ranking import POLICY, best_shares, ratings
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StableAlignmentObjective(WithoutState):
    """L = L_best + ratio * max(0, mean over the others i of (L_best - L_i + m_i)), averaged over prompts.

    L_i is the mean negative log-probability of reply i's tokens, m_i = margin * (r_best - r_i) / rating_scale of the
    ratings r. Replies that tie for the best take that place in turn, and the loss is averaged over them. A chosen
    reply's rating is its margin, 1 without one, and a rejected reply's 0.

    Args:
        ratio: weight of the second term.
        margin: the margin between ratings that are ``rating_scale`` apart, in nats a token.
        rating_scale: the highest rating.
        max_flow: take the largest in the place of the mean.

    The defaults are those of the authors' README; their code's own are ratio 0.5 and margin 1. Their code takes m_i of
    another reply: it looks up the sorted ratings by a place in the unsorted ones.

    Source: Stable Alignment (arXiv 2305.16960, section 3.3).

    Raises:
        ConfigError: an option is out of its range.
    """

    ratio: float = 0.2
    margin: float = 10.0
    rating_scale: float = 7.0
    max_flow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("ratio", self.ratio, 0, True)
        check_bound("margin", self.margin, 0, True)
        check_bound("rating_scale", self.rating_scale, 0, False)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**IMITATED, **P_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return POLICY

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Prompts by their weights, for both terms."""
        prompts = record_count(batch)
        return {"best": prompts, "contrast": prompts}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``best`` and ``contrast``; metrics as in :func:`alignite.objectives.pieces.pair_metrics`, of
        the replies' mean log-probabilities."""
        sums = reply_sums(columns["policy.logp"], batch)
        means = sums / positive_lengths(batch, sums)
        shares, worth = best_shares(batch), ratings(batch)
        best = -(means * as_tensor(shares, sums)).sum()
        contrast = means.sum() * 0.0  # a zero with a graph, where every reply is alone
        for one in np.flatnonzero(shares).tolist():
            others = (batch.records == batch.records[one]) & ~np.isnan(worth)
            others[one] = False
            members = np.flatnonzero(others)
            if len(members):
                margins = as_tensor(self.margins(worth[one], worth[members]), sums)
                gaps = means[as_tensor(members, sums)] - means[one] + margins
                contrast = contrast + (gaps.max() if self.max_flow else gaps.mean()).relu() * float(shares[one])
        counts = self.counts(batch)
        terms = {"best": Term(best, counts["best"]), "contrast": Term(contrast, counts["contrast"], self.ratio)}
        return LossOutput(terms, pair_metrics(means, preference_pairs(batch), columns, batch))

    def margins(self, best: float, others: NDArray[np.float64]) -> NDArray[np.float64]:
        """m_i of replies rated ``others`` beside one that is rated ``best``."""
        return self.margin * (best - others) / self.rating_scale
