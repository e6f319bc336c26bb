"""Losses of a pair of replies under a policy and a reference, one function a loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairValues:
    """What a loss is made of, each (pairs,).

    Args:
        chosen, rejected: log pi(y|x) - log pi_ref(y|x), summed over the reply's scored tokens.
        chosen_score, rejected_score: the same through the f-divergence's f'; equal to them for reverse KL.
        chosen_length, rejected_length: scored tokens by their weights, above 0.
        margin: how much better the chosen reply is said to be; 0 where nothing is said.
        p: the probability that the chosen reply is the better one; 1 where nothing is said.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_score: Tensor
    rejected_score: Tensor
    chosen_length: Tensor
    rejected_length: Tensor
    margin: Tensor
    p: Tensor

    @property
    def delta(self) -> Tensor:
        return self.chosen_score - self.rejected_score

    @property
    def mean_delta(self) -> Tensor:
        """The difference of per-token means."""
        return self.chosen_score / self.chosen_length - self.rejected_score / self.rejected_length


@dataclass(frozen=True)
class PairOptions:
    """``beta``, ``label_smoothing`` and ``discopop_tau`` as in :class:`alignite.objectives.dpo.DPOObjective`."""

    beta: float = 0.1
    label_smoothing: float = 0.0
    discopop_tau: float = 0.05


_MOST = 40.0
"""The largest exponent: beyond it the square of a difference of two exponentials leaves float32."""


def _log_sigmoid(z: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(z)


def smoothed(z: Tensor, wrong: Tensor | float) -> Tensor:
    """-(1 - e) log s(z) - e log s(-z)."""
    return -(1 - wrong) * _log_sigmoid(z) - wrong * _log_sigmoid(-z)


def sigmoid(v: PairValues, o: PairOptions) -> Tensor:
    """-p' log s(b d - m) - (1 - p') log s(m - b d) with p' = p (1 - e) + (1 - p) e.

    DPO (arXiv 2305.18290, equation 7); with label smoothing e cDPO (Mitchell 2023); the margin m as in ODPO (arXiv
    2402.10571, equation 5).
    """
    right = v.p * (1 - o.label_smoothing) + (1 - v.p) * o.label_smoothing
    return smoothed(o.beta * v.delta - v.margin, 1 - right)


def robust(v: PairValues, o: PairOptions) -> Tensor:
    """[-(1 - e) log s(b d) + e log s(-b d)] / (1 - 2e), unbiased when labels flip with probability e < 1/2.

    rDPO (arXiv 2403.00409, equation 12).
    """
    z, e = o.beta * v.delta, o.label_smoothing
    return (-(1 - e) * _log_sigmoid(z) + e * _log_sigmoid(-z)) / (1 - 2 * e)


def ipo(v: PairValues, o: PairOptions) -> Tensor:
    """(d - 1/(2b))^2 on per-token means, as the authors of IPO say they used it (arXiv 2310.12036, equation 17)."""
    return (v.mean_delta - 1 / (2 * o.beta)).square()


def ipo_sum(v: PairValues, o: PairOptions) -> Tensor:
    """(d - 1/(2b))^2 on sums, as the paper writes it (arXiv 2310.12036, equation 17)."""
    return (v.delta - 1 / (2 * o.beta)).square()


def hinge(v: PairValues, o: PairOptions) -> Tensor:
    """max(0, 1 - b d): RSO's hinge-norm loss (arXiv 2309.06657, equation 9), which is not SLiC-HF's."""
    return (1 - o.beta * v.delta).relu()


def sigmoid_norm(v: PairValues, o: PairOptions) -> Tensor:
    """-log s(b d) on per-token means (Tulu 3, arXiv 2411.15124, equation 6)."""
    return -_log_sigmoid(o.beta * v.mean_delta)


def exo_pair(v: PairValues, o: PairOptions) -> Tensor:
    """KL from softmax(b r) over the pair to (1 - e, e): EXO (arXiv 2402.00856, equation 16)."""
    z, e = o.beta * v.delta, o.label_smoothing
    return z.sigmoid() * (_log_sigmoid(z) - math.log1p(-e)) + (-z).sigmoid() * (_log_sigmoid(-z) - math.log(e))


def nca_pair(v: PairValues, o: PairOptions) -> Tensor:
    """-log s(b r_w) - (log s(-b r_w) + log s(-b r_l)) / 2: NCA (arXiv 2402.05369, equation 11)."""
    chosen, rejected = o.beta * v.chosen, o.beta * v.rejected
    return -_log_sigmoid(chosen) - 0.5 * _log_sigmoid(-chosen) - 0.5 * _log_sigmoid(-rejected)


def bco_pair(v: PairValues, o: PairOptions) -> Tensor:
    """-log s(b r_w) - log s(-b r_l): BCO on pairs (arXiv 2404.04656), without its running shift."""
    return -_log_sigmoid(o.beta * v.chosen) - _log_sigmoid(-o.beta * v.rejected)


def sppo_hard(v: PairValues, o: PairOptions) -> Tensor:
    """(r_w - 1/(2b))^2 + (r_l + 1/(2b))^2: SPPO with hard labels (arXiv 2405.00675, equation 4.7)."""
    return (v.chosen - 0.5 / o.beta).square() + (v.rejected + 0.5 / o.beta).square()


def apo_zero(v: PairValues, o: PairOptions) -> Tensor:
    """1 - s(b r_w) + s(b r_l), for chosen replies better than the model's (APO, arXiv 2408.06266, equation 7)."""
    return 1 - (o.beta * v.chosen).sigmoid() + (o.beta * v.rejected).sigmoid()


def apo_down(v: PairValues, o: PairOptions) -> Tensor:
    """s(b r_w) + 1 - s(b (r_w - r_l)), for chosen replies worse than the model's (APO, equation 8)."""
    return (o.beta * v.chosen).sigmoid() + 1 - (o.beta * (v.chosen - v.rejected)).sigmoid()


def discopop(v: PairValues, o: PairOptions) -> Tensor:
    """A blend of the logistic and the exponential loss by s(b d / tau): DiscoPOP (arXiv 2406.08414, equation 5)."""
    z = o.beta * v.delta
    blend = z / o.discopop_tau
    # exp(-z) s(blend) as one exponential: apart they are infinity times 0 where z is far below 0.
    exponential = (_log_sigmoid(blend) - z).clamp(max=_MOST).exp()
    return -_log_sigmoid(z) * (-blend).sigmoid() + exponential


PAIR_LOSSES: dict[str, Callable[[PairValues, PairOptions], Tensor]] = {
    one.__name__: one
    for one in (
        sigmoid, robust, ipo, ipo_sum, hinge, sigmoid_norm, exo_pair, nca_pair, bco_pair, sppo_hard, apo_zero, apo_down,
        discopop,
    )
}  # fmt: skip
"""By the name that ``loss_type`` takes."""

RATIO_LOSSES = frozenset({"nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"})
"""Losses of the log-ratios themselves, which an f-divergence does not reach."""

DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")


def f_prime(log_ratio: Tensor, divergence: str, alpha: float) -> Tensor:
    """f'(u) of an f-divergence at u = exp(log_ratio), up to a constant (arXiv 2309.16240, table 1).

    For alpha at 1 the alpha-divergence is the reverse KL divergence.
    """
    if divergence == "forward_kl":
        return 1 - (-log_ratio).clamp(max=_MOST).exp()
    if divergence == "js_divergence":
        return math.log(2) + _log_sigmoid(log_ratio)
    if divergence == "alpha_divergence" and abs(alpha - 1) > 1e-6:
        return (((alpha - 1) * log_ratio).clamp(max=_MOST).exp() - 1) / (alpha - 1)
    return log_ratio
