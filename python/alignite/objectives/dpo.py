"""Direct preference optimization and the losses that share its form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from alignite.config.options import check_bound, check_share
from alignite.errors import ConfigError
from alignite.objectives.odd_rows import MARGIN, P_UNREAD, PAIRS_ONLY
from alignite.objectives.pair_losses import (
    DIVERGENCES,
    PAIR_LOSSES,
    RATIO_LOSSES,
    PairOptions,
    PairValues,
    f_prime,
)
from alignite.objectives.pieces import (
    ReplyPairs,
    WithoutState,
    as_tensor,
    pair_count,
    pair_metrics,
    positive_lengths,
    reply_lengths,
    reply_sums,
)
from alignite.objectives.ranking import paired_best
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

_SFT = "sft"


@dataclass(frozen=True, kw_only=True)
class DPOObjective(WithoutState):
    """The mean over prompts of the mean over a prompt's pairs (w, l) of a loss of

        r_w - r_l,   r_y = log pi(y|x) - log pi_ref(y|x), summed over the reply's scored tokens.

    A preference has one pair, so for pairs that is the plain mean; a ranking has every two replies whose scores differ.
    Several losses are added by their weights; ``sft`` among them is the chosen replies' mean negative log-probability
    a token, of a ranking those of its best reply. Rewards in the metrics are beta * r.

    Args:
        beta: the strength of the reference.
        loss_type: names of :data:`alignite.objectives.pair_losses.PAIR_LOSSES`, or ``sft``.
        loss_weights: a weight for each; default: 1 each.
        label_smoothing: e, the probability that a label is wrong; for ``sigmoid`` (cDPO), ``robust`` and ``exo_pair``.
        reference_free: the reference says the same of all replies, so no reference model runs.
        f_divergence_type: reverse_kl, forward_kl, js_divergence or alpha_divergence (arXiv 2309.16240); the rewards go
            through its f'.
        use_weighting: weigh each pair by w(y_w) w(y_l), w(y) = exp of the mean over y's tokens of log pi(y_t) - log
            sum_v pi(v)^2, without a gradient: how likely the policy is to write the pair (WPO, arXiv 2406.11827,
            equation 2). ``sft`` is not weighed.
        f_alpha_divergence_coef: alpha of the last. ``discopop_tau``: of ``discopop``.

    Raises:
        ConfigError: an option is out of range, or two do not go together.

    Source: arXiv 2305.18290, equation 7.
    """

    beta: float = 0.1
    loss_type: Sequence[str] = ("sigmoid",)
    loss_weights: Sequence[float] = ()
    label_smoothing: float = 0.0
    reference_free: bool = False
    f_divergence_type: str = "reverse_kl"
    f_alpha_divergence_coef: float = 0.5
    discopop_tau: float = 0.05
    use_weighting: bool = False
    more_losses: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [*PAIR_LOSSES, *self.more_losses, _SFT]
        for name in self.loss_type:
            if name in ("aot", "aot_unpaired") and name not in known:
                raise ConfigError(
                    f"{name} sorts the pairs of a whole update", fix="make an AOTObjective, or call make_objective"
                )
            if name not in known:
                raise ConfigError(f"there is no loss_type {name!r}", fix=f"it is one of {', '.join(known)}")
        if not self.loss_type or len(set(self.loss_type)) < len(self.loss_type):
            raise ConfigError("loss_type is empty or names a loss twice", fix="name each loss once")
        if self.loss_weights and len(self.loss_weights) != len(self.loss_type):
            raise ConfigError(
                f"{len(self.loss_weights)} loss_weights for {len(self.loss_type)} losses", fix="give one for each"
            )
        check_bound("beta", self.beta, 0, False)
        check_share("label_smoothing", self.label_smoothing, 0.5)
        check_bound("discopop_tau", self.discopop_tau, 0, False)
        for weight in self.loss_weights:
            check_bound("loss_weights", weight, 0, True)
        if "exo_pair" in self.loss_type and self.label_smoothing == 0:
            raise ConfigError(
                "exo_pair needs label_smoothing", why="it takes its logarithm", fix="set it above 0: 1e-3"
            )
        if self.f_divergence_type not in DIVERGENCES:
            raise ConfigError(
                f"there is no f_divergence_type {self.f_divergence_type!r}",
                fix=f"it is one of {', '.join(DIVERGENCES)}",
            )

        if self.use_weighting and (bad := set(self.loss_type) & {*self.more_losses}):
            raise ConfigError(
                f"use_weighting is given with {', '.join(sorted(bad))}",
                why="these losses do not compare the two replies of a pair, which a weight is of",
                fix="leave one of them out",
            )
        if self.f_divergence_type != "reverse_kl" and (bad := set(self.loss_type) & {*RATIO_LOSSES, *self.more_losses}):
            raise ConfigError(
                f"f_divergence_type {self.f_divergence_type} does not reach {', '.join(sorted(bad))}",
                why="these losses are of log-ratios, not of the difference of two scores",
                fix="use reverse_kl, or sigmoid, sigmoid_norm, robust, ipo, ipo_sum, hinge, exo_pair or discopop",
            )

    @property
    def odd_rows(self) -> Mapping[str, str]:
        if list(self.loss_type) == ["sigmoid"]:
            return PAIRS_ONLY
        return {**PAIRS_ONLY, **P_UNREAD, MARGIN: "of the losses only sigmoid reads it"}

    @property
    def columns(self) -> frozenset[str]:
        names = {"policy.logp", "policy.entropy", "policy.mean_logit"}
        names |= {"policy.log_sum_sq_probs"} if self.use_weighting else set()
        return frozenset(names | (set() if self.reference_free else {"reference.logp"}))

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Records with a pair, for each loss; for ``sft`` the chosen replies' scored tokens."""
        records = pair_count(batch)
        return {name: self._sft_count(batch) if name == _SFT else records for name in self.loss_type}

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """A term a loss; metrics by the names in docs/methods/dpo.md."""

        pairs = ReplyPairs.of(columns["policy.logp"], batch)
        policy = pairs.sums
        chosen, rejected = as_tensor(pairs.pairs.chosen, policy), as_tensor(pairs.pairs.rejected, policy)
        # Differences before sums: of two sums over a long reply float32 keeps too few digits.
        logp = columns["policy.logp"]
        ratio = policy if self.reference_free else reply_sums(logp - columns["reference.logp"], batch)
        score = f_prime(ratio, self.f_divergence_type, self.f_alpha_divergence_coef)
        lengths = positive_lengths(batch, policy)
        margin, p = (as_tensor(column, policy) for column in pairs.pairs.labels(batch))
        values = PairValues(
            ratio[chosen],
            ratio[rejected],
            score[chosen],
            score[rejected],
            lengths[chosen],
            lengths[rejected],
            margin,
            p,
        )
        shares = pairs.shares
        if self.use_weighting:
            likely = (logp - columns["policy.log_sum_sq_probs"]).detach()
            weights = (reply_sums(likely, batch) / lengths).exp()
            shares = shares * weights[chosen] * weights[rejected]
        counts = self.counts(batch)
        terms = {}
        for name, weight in zip(self.loss_type, self.loss_weights or [1.0] * len(self.loss_type), strict=True):
            if name == _SFT:
                terms[name] = Term(-(policy * as_tensor(paired_best(batch), policy)).sum(), counts[name], weight)
            else:
                terms[name] = Term(self.pair_term(name, values, shares, columns), counts[name], weight)
        return LossOutput(terms, pair_metrics(self.beta * ratio, pairs.pairs, columns, batch))

    def pair_term(self, name: str, values: PairValues, shares: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """The sum of a loss over a batch's pairs, a scalar with a graph."""
        options = PairOptions(self.beta, self.label_smoothing, self.discopop_tau)
        return (PAIR_LOSSES[name](values, options) * shares).sum()

    def _sft_count(self, batch: FeedbackBatch) -> float:
        return float((reply_lengths(batch).double().cpu().numpy() * paired_best(batch)).sum())
