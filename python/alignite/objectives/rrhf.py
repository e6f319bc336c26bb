"""RRHF: rank responses to align with human feedback."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import ConfigError
from alignite.objectives.odd_rows import IMITATED, MARGIN_UNREAD, P_UNREAD
from alignite.objectives.pieces import (
    WithoutState,
    as_tensor,
    check_choice,
    gaps,
    pair_metrics,
    positive_lengths,
    preference_pairs,
    record_count,
    record_weights,
    reply_sums,
)
from alignite.objectives.ranking import POLICY, best_shares
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RRHFObjective(WithoutState):
    """L = w * sum over r_i < r_j of max(0, p_i - p_j) - sum_t log pi(y*_t | x, y*_<t), averaged over prompts.

    p_i = sum_t log pi(y_it | x, y_i<t) / |y_i|^a ranks a prompt's replies; y* is the one with the best score r. Equal
    scores give no pair. There is no reference model and no margin.

    Args:
        length_penalty: a.
        rrhf_weight: w, of the ranking term.
        sft: ``sum`` is the paper's second term; ``mean`` divides it by the tokens of y*.
        mode: ``paper``, or ``reference``: what the authors' train.py computes. There |y_i| is the padded width of the
            prompt with its longest reply, for every reply, since labels are changed in place before they are counted;
            and the second term is divided by that width too, whatever ``sft`` says.
        padded_width: that width in ``reference`` mode; by default it is found from each record's segments.

    Source: RRHF (arXiv 2304.05302, equations 1 to 4); the reference is GanjinZero/RRHF, train.py.

    Raises:
        ConfigError: an option is out of its range.
    """

    length_penalty: float = 1.0
    rrhf_weight: float = 1.0
    sft: str = "sum"
    mode: str = "paper"
    padded_width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("length_penalty", self.length_penalty, 0, True)
        check_bound("rrhf_weight", self.rrhf_weight, 0, True)
        check_choice("sft", self.sft, ("sum", "mean"))
        check_choice("mode", self.mode, ("paper", "reference"))
        if self.padded_width is not None:
            check_bound("padded_width", self.padded_width, 1, True)
            if self.mode == "paper":
                raise ConfigError(
                    f"padded_width is {self.padded_width} in mode paper",
                    why="the paper divides by each reply's own length",
                    fix="leave padded_width out, or set mode to reference",
                )

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**IMITATED, **P_UNREAD, **MARGIN_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return POLICY

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Prompts by their weights, for both terms; those without a pair count."""
        prompts = record_count(batch)
        return {"rank": prompts, "sft": prompts}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``rank`` and ``sft``; metrics as in :func:`alignite.objectives.pieces.pair_metrics`."""
        sums = reply_sums(columns["policy.logp"], batch)
        lengths = self._lengths(batch, sums)
        scores = sums / lengths**self.length_penalty
        pairs = preference_pairs(batch)
        best = sums / lengths if self.mode == "reference" or self.sft == "mean" else sums
        counts = self.counts(batch)
        weights = as_tensor(record_weights(batch)[pairs.records], sums)
        terms = {
            "rank": Term(((-gaps(scores, pairs)).relu() * weights).sum(), counts["rank"], self.rrhf_weight),
            "sft": Term(-(best * as_tensor(best_shares(batch), sums)).sum(), counts["sft"]),
        }
        return LossOutput(terms, pair_metrics(scores, pairs, columns, batch))

    def _lengths(self, batch: FeedbackBatch, like: Tensor) -> Tensor:
        """What each reply's sum is divided by, (replies,)."""
        if self.mode == "paper":
            return positive_lengths(batch, like)
        widths = np.full(batch.num_records, self.padded_width or 0, np.int64)
        if self.padded_width is None:
            parents = batch.segments[batch.replies, 2]
            prompts = np.where(parents < 0, 0, batch.segments[parents, 1])
            np.maximum.at(widths, batch.records, batch.segments[batch.replies, 1] + prompts)
        return as_tensor(widths[batch.records].astype(np.float64), like)
