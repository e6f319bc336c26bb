"""SLiC-HF: sequence likelihood calibration, and the tournament that makes its pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import UsageError
from alignite.objectives.odd_rows import IMITATED, MARGIN_UNREAD, P_UNREAD
from alignite.objectives.pieces import (
    Pairs,
    WithoutState,
    as_tensor,
    check_choice,
    gaps,
    pair_count,
    pair_metrics,
    pair_shares,
    preference_pairs,
    record_count,
    record_weights,
    reply_sums,
)
from alignite.objectives.ranking import POLICY, REFERENCE, best_shares, ratings
from alignite.types import FeedbackBatch, LossOutput, ReplyRole, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

KINDS = ("rank", "margin", "list", "reward")
REGULARISERS = ("ce", "kl", "k3")


@dataclass(frozen=True, kw_only=True)
class SLiCObjective(WithoutState):
    """L = calibration + lam * regulariser, of summed log-probabilities l_i = sum_t log pi(y_it | x, y_i<t).

    The calibration of a prompt is, by ``kind``, with scores s and pairs s_i > s_j:

    - ``rank``: the mean over pairs of max(0, delta - l_i + l_j), SLiC-HF's loss for one pair
    - ``margin``: the mean over pairs of max(0, delta (s_i - s_j) - l_i + l_j)
    - ``list``: the sum over pairs of max(0, delta |i - j| - l_i + l_j), |i - j| the places between them when the
      replies are sorted by score; replies with equal scores share a place
    - ``reward``: - sum_i s_i P_i, P = softmax of l over the prompt's replies: the expected score, negated

    It is averaged over prompts that have a pair. A chosen reply's s is its margin, 1 without one, and a rejected
    reply's 0. The regulariser is averaged over all prompts and looks at y*, the best (or the chosen) reply:

    - ``ce``: -sum_t log pi(y*_t); no reference model takes part
    - ``kl``: sum_t KL(ref || pi) over the whole vocabulary at each of y*'s tokens
    - ``k3``: sum_t (u_t - 1 - log u_t), u_t = pi(y*_t) / ref(y*_t): an estimate of that from y*'s tokens alone,
      unbiased only where y* was sampled from the reference

    Args:
        delta: the margin, in nats; SLiC calls it beta.
        lam: weight of the regulariser; SLiC-HF does not print the one it used.
        kind: the calibration. reg: the regulariser.

    Source: SLiC-HF (arXiv 2305.10425, equation 1); SLiC (arXiv 2210.00045, section 2.2 and 2.3).

    Raises:
        ConfigError: an option is out of its range.
    """

    delta: float = 1.0
    lam: float = 0.5
    kind: str = "rank"
    reg: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("delta", self.delta, 0, True)
        check_bound("lam", self.lam, 0, True)
        check_choice("kind", self.kind, KINDS)
        check_choice("reg", self.reg, REGULARISERS)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        read = self.kind in ("margin", "reward")
        return {**IMITATED, **P_UNREAD, **({} if read else MARGIN_UNREAD)}

    @property
    def columns(self) -> frozenset[str]:
        return POLICY | {"ce": frozenset(), "kl": frozenset({"policy.forward_kl"}), "k3": REFERENCE}[self.reg]

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Prompts that have a pair for ``calibration``, all for the regulariser, named as ``reg``; by weight."""
        return {"calibration": pair_count(batch), self.reg: record_count(batch)}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``calibration`` and ``ce``, ``kl`` or ``k3``; metrics as in
        :func:`alignite.objectives.pieces.pair_metrics`."""
        logp = columns["policy.logp"]
        sums = reply_sums(logp, batch)
        pairs = preference_pairs(batch)
        counts = self.counts(batch)
        calibration = self._expected(sums, pairs, batch) if self.kind == "reward" else self._hinge(sums, pairs, batch)
        cost = -logp
        if self.reg == "kl":
            cost = columns["policy.forward_kl"]
        elif self.reg == "k3":
            ratio = logp - columns["reference.logp"]
            cost = ratio.expm1() - ratio
        regulariser = (reply_sums(cost, batch) * as_tensor(best_shares(batch), sums)).sum()
        terms = {
            "calibration": Term(calibration, counts["calibration"]),
            self.reg: Term(regulariser, counts[self.reg], self.lam),
        }
        return LossOutput(terms, pair_metrics(sums, pairs, columns, batch))

    def _hinge(self, sums: Tensor, pairs: Pairs, batch: FeedbackBatch) -> Tensor:
        margins, shares = np.full(len(pairs), self.delta), pair_shares(pairs, batch)
        if self.kind == "margin":
            worth = ratings(batch)
            margins = margins * (worth[pairs.chosen] - worth[pairs.rejected])
        if self.kind == "list":
            places = _places(batch)
            margins = margins * (places[pairs.chosen] - places[pairs.rejected])
            shares = record_weights(batch)[pairs.records]
        hinge = (as_tensor(margins, sums) - gaps(sums, pairs)).relu()
        return (hinge * as_tensor(shares, sums)).sum()

    def _expected(self, sums: Tensor, pairs: Pairs, batch: FeedbackBatch) -> Tensor:
        worth, weights = ratings(batch), record_weights(batch)
        total = sums.sum() * 0.0  # a zero with a graph, where no record has a pair
        for record in np.unique(pairs.records).tolist():
            members = np.flatnonzero((batch.records == record) & ~np.isnan(worth))
            share = sums[as_tensor(members, sums)].softmax(0)
            total = total - float(weights[record]) * (share * as_tensor(worth[members], sums)).sum()
        return total


def _places(batch: FeedbackBatch) -> NDArray[np.float64]:
    """How many different scores of its record lie below a reply's, (replies,); 1 and 0 of a pair."""
    worth = np.where(batch.roles == ReplyRole.CHOSEN, 1.0, ratings(batch))  # whatever the pair's margin
    places = np.zeros(len(worth))
    for record in np.unique(batch.records).tolist():
        members = batch.records == record
        places[members] = np.unique(worth[members], return_inverse=True)[1]
    return places


T = TypeVar("T")


def tournament(ranker: Callable[[T, T], bool], candidates: Sequence[T]) -> tuple[T, list[tuple[T, T]]]:
    """The winner of a knock-out among candidates and its m - 1 matches, in the order in which they were played.

    In each round the first plays the second, the third the fourth and so on; who has no opponent goes through. Under
    a transitive ranker the winner is the best. A match is (its winner, its loser), a chosen and a rejected reply.

    Args:
        ranker: whether its first argument is better than its second.
        candidates: at least one.

    Source: SLiC-HF (arXiv 2305.10425, section 3.2).

    Raises:
        UsageError: there are no candidates.
    """
    if not candidates:
        raise UsageError("a tournament of no candidates", fix="give at least one")
    left = list(candidates)
    matches: list[tuple[T, T]] = []
    while len(left) > 1:
        through = []
        for first, second in zip(left[::2], left[1::2], strict=False):
            matches.append((first, second) if ranker(first, second) else (second, first))
            through.append(matches[-1][0])
        left = through + (left[-1:] if len(left) % 2 else [])
    return left[0], matches
