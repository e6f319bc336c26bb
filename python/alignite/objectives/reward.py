"""Reward models from comparisons: pairwise Bradley-Terry, rankings by all their pairs, Plackett-Luce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignite.config.options import check_bound, check_share
from alignite.errors import ConfigError, DataError, NumericsError, UsageError
from alignite.objectives.odd_rows import ALL_TIE, ONE_REPLY, PAIRS_ONLY
from alignite.objectives.pieces import (
    Pairs,
    WithoutState,
    as_tensor,
    pair_count,
    pair_shares,
    preference_pairs,
    record_weights,
)
from alignite.types import CRITERION, IGNORE, FeedbackBatch, LossOutput, ReplyRole, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LOSSES = ("bradley_terry", "plackett_luce")
MARGINS: dict[str, tuple[float, ...] | None] = {
    "none": (),
    "column": None,
    "llama2_small": (0.0, 1 / 3, 2 / 3, 1.0),
    "llama2_large": (0.0, 1.0, 2.0, 3.0),
}
"""How a row's margin is read: not at all, as it stands, or as a degree of preference from 0 (negligibly better) over 1
(slightly) and 2 (better) to 3 (significantly), which LLaMA-2 (arXiv 2307.09288, section 3.2.2) turns into these."""


class RewardObjective(WithoutState):
    """L = mean over prompts of the mean over a prompt's strict pairs (w, l) of l(r_w - r_l - m).

    With p the probability that w is the better one and s the logistic function,

        l(z) = -p' log s(z) - (1 - p') log s(-z),    p' = p (1 - e) + (1 - p) e,    e = label_smoothing.

    A pair is a prompt with one pair, p its row's ``p`` or 1 and m its row's margin or 0. A ranking has all pairs whose
    scores differ (InstructGPT, arXiv 2203.02155, equation 1: K replies, C(K, 2) pairs, each reply encoded once); ties
    give none, and a ranking without a pair counts for nothing. ``plackett_luce`` takes for a ranking, in the place of
    the mean over pairs, its negative log-likelihood

        -sum over replies i with a worse one of log( exp r_i / (exp r_i + sum over worse j of exp r_j) ),

    the Plackett-Luce model when there are no ties.

    Further terms, each with a count of its own: ``center``, c (r_w + r_l)^2 averaged as the pairs are (TRL's
    ``center_rewards_coefficient``); ``lm``, mu times the mean negative log-probability of the best replies' tokens
    under the vocabulary head that the model keeps.

    Of a model with several heads a record trains the head that ``batch.given["criterion"]``, int64 (records,), names;
    a record with -1 there, or without that column, trains every head, and their losses are averaged.

    Metrics: over pairs whose p is not 1/2, ``accuracy`` (the likelier one scores higher; equal scores are wrong);
    over pairs, ``margin`` (r_w - r_l); over records with a pair, ``min_reward``, ``mean_reward`` and
    ``max_reward``, the least, mean and greatest score of a record's replies; over records, ``no_pair``, those
    without a strict pair; with ``criteria``, ``accuracy/NAME`` over the pairs about each. Scores are those of a
    record's head, or the mean of all heads. All are means over what they count, so how an update is split changes
    nothing; TRL's least and greatest of a batch do depend on it.

    Args:
        loss_type: ``bradley_terry`` or ``plackett_luce``.
        margin: a key of :data:`MARGINS`.
        label_smoothing: e, at least 0 and below 1/2; of ``bradley_terry`` only.
        center_rewards_coefficient: c, at least 0.
        lm_coefficient: mu, at least 0.
        criteria: names of the heads, for the metrics.

    Raises:
        ConfigError, UsageError: an option is out of range, or two do not go together.
    """

    def __init__(
        self,
        loss_type: str = "bradley_terry",
        *,
        margin: str = "column",
        label_smoothing: float = 0.0,
        center_rewards_coefficient: float = 0.0,
        lm_coefficient: float = 0.0,
        criteria: Sequence[str] = (),
    ) -> None:
        if loss_type not in LOSSES:
            raise UsageError(f"there is no reward loss {loss_type!r}", fix=f"it is one of {', '.join(LOSSES)}")
        if margin not in MARGINS:
            raise UsageError(f"there is no margin {margin!r}", fix=f"it is one of {', '.join(MARGINS)}")
        check_share("label_smoothing", label_smoothing, 0.5)
        if label_smoothing and loss_type == "plackett_luce":
            raise ConfigError(
                "label_smoothing is given with plackett_luce",
                why="the likelihood of an order has no label that could be wrong",
                fix="leave it out, or take bradley_terry",
            )
        for name, value in (
            ("center_rewards_coefficient", center_rewards_coefficient),
            ("lm_coefficient", lm_coefficient),
        ):
            check_bound(name, value, 0, True)
        self.loss_type, self.margin, self.label_smoothing = loss_type, margin, label_smoothing
        self.center, self.lm_coefficient = center_rewards_coefficient, lm_coefficient
        self.criteria = tuple(criteria)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        if self.lm_coefficient:
            return dict.fromkeys((ONE_REPLY, ALL_TIE), "only the language-model term is of it")
        return PAIRS_ONLY

    @property
    def columns(self) -> frozenset[str]:
        return frozenset({"policy.score"} | ({"policy.logp"} if self.lm_coefficient else set()))

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Records with a strict pair by their weights; for ``lm`` the best replies' tokens, by both weights."""
        records = pair_count(batch)
        counts = {"reward": records}
        if self.center:
            counts["center"] = records
        if self.lm_coefficient:
            counts["lm"] = float(_best_weights(batch).double().sum())
        return counts

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``reward``, ``center`` and ``lm``, and the metrics above.

        Raises:
            NumericsError: a score is not finite. DataError: a margin is no degree of the scale, or a criterion no head.
        """
        import torch

        scores = columns["policy.score"]
        _check_finite(scores, batch)
        heads = _heads(batch, scores)
        pairs = preference_pairs(batch)
        _, said = pairs.labels(batch)
        device = scores.device
        better, worse = (torch.from_numpy(side).to(device) for side in (pairs.chosen, pairs.rejected))
        probability, margins = (
            torch.from_numpy(values).to(scores)[:, None] for values in (said, self._margins(batch, pairs))
        )
        # Of each pair and each head.
        shares = as_tensor(pair_shares(pairs, batch), scores)[:, None] * heads[as_tensor(pairs.records, scores)]
        first, second = scores[better], scores[worse]
        target = probability * (1 - 2 * self.label_smoothing) + self.label_smoothing
        z = first - second - margins
        log_sigmoid = torch.nn.functional.logsigmoid
        losses = -target * log_sigmoid(z) - (1 - target) * log_sigmoid(-z)
        if self.loss_type == "plackett_luce":
            paired = torch.from_numpy(batch.roles[pairs.chosen] == ReplyRole.CHOSEN).to(device)[:, None]
            total = (losses * shares * paired).sum() + _plackett_luce(scores, heads, batch)
        else:
            total = (losses * shares).sum()
        counts = self.counts(batch)
        terms = {"reward": Term(total, counts["reward"])}
        if self.center:
            squares = ((first + second).square() * shares).sum()
            terms["center"] = Term(squares, counts["center"], self.center)
        if self.lm_coefficient:
            weights = _best_weights(batch)
            terms["lm"] = Term(-(columns["policy.logp"] * weights).sum(), counts["lm"], self.lm_coefficient)
        own = (scores.detach() * heads[as_tensor(batch.records, scores)]).sum(1)
        return LossOutput(terms, _metrics(own, batch, pairs, said, self.criteria))

    def _margins(self, batch: FeedbackBatch, pairs: Pairs) -> NDArray[np.float64]:
        given = np.where(batch.roles == ReplyRole.CHOSEN, batch.scores, np.nan)[pairs.chosen]
        scale = MARGINS[self.margin]
        if scale == ():
            return np.zeros(len(pairs))
        known = ~np.isnan(given)
        if scale is not None:
            bad = known & ~np.isin(given, np.arange(len(scale)))
            if bad.any():
                raise DataError(
                    f"a margin is {given[bad][0]:g}, no degree of {self.margin}",
                    where=batch.place(int(pairs.records[bad][0])),
                    fix="give 0 (negligibly better), 1 (slightly), 2 (better) or 3 (significantly), or margin: column",
                )
            given = np.asarray(scale)[np.where(known, given, 0).astype(np.int64)]
        return np.where(known, given, 0.0).astype(np.float64)


def _heads(batch: FeedbackBatch, scores: Tensor) -> Tensor:
    """How much of a record's loss is each head's, (records, heads): all of the one that it is about, or equal parts."""
    count = scores.shape[1]
    parts = np.full((batch.num_records, count), 1.0 / count)
    criterion = batch.given.get(CRITERION)
    if criterion is not None:
        about = criterion.cpu().numpy()
        if (about >= count).any():
            raise DataError(
                f"a record is about criterion {int(about.max())}, and the model has {count} heads",
                where=batch.place(int(about.argmax())),
                fix="number the criteria from 0; criteria names one for each head",
            )
        parts = np.where(about[:, None] < 0, parts, about[:, None] == np.arange(count))
    return as_tensor(parts, scores)


def _check_finite(scores: Tensor, batch: FeedbackBatch) -> None:
    wrong = (~scores.isfinite()).any(1).nonzero()[:, 0].tolist()
    if wrong:
        raise NumericsError(
            f"the score of a reply is {scores[wrong[0]].tolist()}",
            where=f"reply {wrong[0]}, of {batch.place(int(batch.records[wrong[0]]))}",
            fix="lower the learning rate, or look at the row",
        )


def _plackett_luce(scores: Tensor, heads: Tensor, batch: FeedbackBatch) -> Tensor:
    """The sum over rankings of the negative log-likelihood of their order, each by its heads."""
    import torch

    ranked = np.flatnonzero(batch.roles == ReplyRole.REPLY)
    same = batch.records[ranked][:, None] == batch.records[ranked][None, :]
    worse = same & (batch.scores[ranked][:, None] > batch.scores[ranked][None, :])
    wins = worse.any(1)
    if not wins.any():
        return scores.sum() * 0.0
    choices = torch.from_numpy((worse | np.eye(len(ranked), dtype=bool))[wins]).to(scores.device)
    among = scores[torch.from_numpy(ranked).to(scores.device)]
    total = among[None].masked_fill(~choices[:, :, None], -torch.inf).logsumexp(1)
    records = batch.records[ranked][wins]
    of = heads[as_tensor(records, scores)] * as_tensor(record_weights(batch)[records], scores)[:, None]
    return ((total - among[torch.from_numpy(wins).to(scores.device)]) * of).sum()


def _best_weights(batch: FeedbackBatch) -> Tensor:
    """Of each scored token its weight times its record's where its reply is the best, else 0; float32 (scored,)."""
    import torch

    best = batch.roles == ReplyRole.CHOSEN
    for record in np.unique(batch.records[batch.roles == ReplyRole.REPLY]).tolist():
        members = np.flatnonzero(batch.records == record)
        best[members] = batch.scores[members] == batch.scores[members].max()
    worth = best * record_weights(batch)[batch.records]
    chosen = torch.from_numpy(worth).to(batch.reply_of.device)[batch.reply_of].float()
    return chosen if batch.weights is None else chosen * batch.weights[batch.labels != IGNORE]


def _metrics(
    scores: Tensor, batch: FeedbackBatch, pairs: Pairs, p: NDArray[np.float32], criteria: Sequence[str]
) -> dict[str, tuple[float, float]]:
    values = scores.double().cpu().numpy()
    gaps = values[pairs.chosen] - values[pairs.rejected]
    decided = p != 0.5
    right = np.where(p > 0.5, gaps > 0, gaps < 0) & decided
    paired = np.unique(pairs.records)
    groups = [values[batch.records == record] for record in paired.tolist()]
    found = {
        "accuracy": (float(right.sum()), float(decided.sum())),
        "margin": (float(gaps.sum()), float(len(gaps))),
        "no_pair": (float(batch.num_records - len(paired)), float(batch.num_records)),
    }
    about = batch.given[CRITERION].cpu().numpy()[pairs.records] if CRITERION in batch.given else np.zeros(0)
    for number, name in enumerate(criteria):
        # In every batch, so that all ranks know the same metrics.
        of = about == number if len(about) else np.zeros(len(pairs), bool)
        found[f"accuracy/{name}"] = (float(right[of].sum()), float(decided[of].sum()))
    for name, reduce in (("min", np.min), ("mean", np.mean), ("max", np.max)):
        found[f"{name}_reward"] = (float(sum(reduce(group) for group in groups)), float(len(groups)))
    return found
