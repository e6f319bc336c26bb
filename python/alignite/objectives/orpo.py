"""Odds-ratio preference optimization: imitation and preference in one step, without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignite.config.options import check_bound
from alignite.objectives.odd_rows import MARGIN_UNREAD, P_UNREAD, PAIRS_ONLY
from alignite.objectives.pieces import ReplyPairs, WithoutState, as_tensor, pair_count, pair_metrics
from alignite.objectives.ranking import paired_best
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ORPOObjective(WithoutState):
    """The mean over prompts of -a_y of the best reply, and of the mean over its pairs of -beta log s(log odds_w - log
    odds_l).

    a_y is the mean log-probability of a reply's scored tokens and odds_y = exp a_y / (1 - exp a_y).

    Args:
        beta: the weight of the odds ratio, lambda in the paper.

    Raises:
        ConfigError: ``beta`` is not above 0.

    Source: ORPO (arXiv 2403.07691, equations 4 to 7). TRL's imitation term is the mean over all tokens of the batch.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("beta", self.beta, 0, False)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {**PAIRS_ONLY, **P_UNREAD, **MARGIN_UNREAD}

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.logp", "policy.entropy", "policy.mean_logit"})

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Records with a pair, for both terms."""
        records = pair_count(batch)
        return {"nll": records, "odds_ratio": records}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``nll`` and ``odds_ratio``; metrics as DPO's, and ``log_odds_ratio`` and ``log_odds_chosen``."""
        from torch.nn.functional import logsigmoid

        pairs = ReplyPairs.of(columns["policy.logp"], batch)
        # log(1 - exp a); a reply whose every token is certain has a = 0, where its odds have no end.
        means = pairs.means.clamp(max=-1e-7)
        log_odds = means - (-means.expm1()).log()
        ratio = pairs.difference(log_odds)
        records = pair_count(batch)
        terms = {
            "nll": Term(-(pairs.means * as_tensor(paired_best(batch), pairs.means)).sum(), records),
            "odds_ratio": Term(-(logsigmoid(ratio) * pairs.shares).sum(), records, self.beta),
        }
        metrics = pair_metrics(self.beta * pairs.means, pairs.pairs, columns, batch)
        count = float(len(pairs.pairs))
        metrics["log_odds_ratio"] = (float(logsigmoid(ratio).detach().sum()), count)
        metrics["log_odds_chosen"] = (float(ratio.detach().sum()), count)
        return LossOutput(terms, metrics)
