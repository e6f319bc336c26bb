"""Alignment by optimal transport: preferences between distributions of log-ratios, not between two replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from alignite.objectives.dpo import DPOObjective
from alignite.objectives.pair_losses import PairValues, smoothed
from alignite.objectives.pieces import as_tensor, gaps, preference_pairs, record_weights, reply_sums
from alignite.types import FeedbackBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

AOT = ("aot", "aot_unpaired")


@dataclass(frozen=True, kw_only=True)
class AOTObjective(DPOObjective):
    """DPO with losses that sort the pairs of an update; any of DPO's losses may stand beside them.

    With x_(k) the k-th smallest of an update's x, over its pairs on all ranks, and f(z) = -(1 - e) log s(z) - e log
    s(-z), e the label smoothing, the loss is the mean over k of f(beta (a_(k) - b_(k))), where of a pair (w, l)

        aot            a = log pi(w) - log pi(l),         b = log ref(w) - log ref(l)
        aot_unpaired   a = log pi(w) - log ref(w),        b = log pi(l) - log ref(l)

    Every pair counts its record's weight, also those of a ranking; one of weight 2 takes two places. Who stands beside
    whom comes from a pre-pass over the whole update, so value and gradient are those of the sorted loss however the
    update is split; pairs that tie share their places.

    Args: as of :class:`alignite.objectives.DPOObjective`, with ``aot`` and ``aot_unpaired`` among its losses.

    Source: AOT (arXiv 2406.05882); as TRL's losses of these names, which sort each micro-batch alone.
    """

    loss_type: Sequence[str] = ("aot",)
    more_losses: ClassVar[tuple[str, ...]] = AOT

    @property
    def prepass_columns(self) -> frozenset[str]:
        return self.columns & {"policy.logp", "reference.logp"}

    def prepass(
        self,
        columns: Sequence[Mapping[str, Tensor]],
        batches: Sequence[FeedbackBatch],
        total: Callable[[dict[str, float]], dict[str, float]],
    ) -> list[dict[str, Tensor]]:
        """Of each micro-batch, for each side of a loss: what stands beside its pairs, which pair, and its share."""
        wanted = {name: sides for loss, beside in _BESIDE.items() if loss in self.loss_type for name, sides in beside}
        found = [_sides(one, batch) for one, batch in zip(columns, batches, strict=True)]
        # Ranks tell each other how often they have a value, by the value's exact name.
        times: dict[str, float] = {}
        for values in found:
            for side in {side for sides in wanted.values() for side in sides}:
                for number, weight in zip(values[side].tolist(), values["weight"].tolist(), strict=True):
                    key = f"{side} {float(number).hex()}"
                    times[key] = times.get(key, 0.0) + weight
        pools: dict[str, dict[float, float]] = {}
        for key, count in total(times).items():
            side, _, number = key.partition(" ")
            pool = pools.setdefault(side, {})
            pool[float.fromhex(number)] = pool.get(float.fromhex(number), 0.0) + count
        sorted_pools = {side: _Pool.of(pool) for side, pool in pools.items()}
        given: list[dict[str, Tensor]] = []
        for one, values in zip(columns, found, strict=True):
            # The reference has spoken: its numbers need no second pass.
            more: dict[str, Tensor] = {name: one[name] for name in ("reference.logp",) if name in one}
            for name, (own, other) in wanted.items():
                if own not in sorted_pools:  # no rank has a pair
                    sorted_pools |= {own: _Pool.of({}), other: _Pool.of({})}
                pair, beside, share = sorted_pools[own].couples(values[own], sorted_pools[other])
                share = share * values["weight"][pair]
                if name == "aot":
                    # Less the pair's own: of two sums over long replies float32 keeps too few digits.
                    beside = beside - values[other][pair]
                like = one["policy.logp"]
                more |= {f"{name}.pair": as_tensor(pair, like), f"{name}.beside": as_tensor(beside, like)}
                more[f"{name}.share"] = as_tensor(share, like)
            given.append(more)
        return given

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """As DPO's; pairs by their records' weights, for ``aot`` and ``aot_unpaired``."""
        pairs = float(record_weights(batch)[preference_pairs(batch).records].sum())
        return super().counts(batch) | {name: pairs for name in self.loss_type if name in AOT}

    def pair_term(self, name: str, values: PairValues, shares: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """The sum of a loss over a micro-batch's pairs, a scalar with a graph."""
        if name not in AOT:
            return super().pair_term(name, values, shares, columns)

        def term(of: str, delta: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
            pair, beside, share = (columns[f"{of}.{part}"] for part in ("pair", "beside", "share"))
            return (smoothed(self.beta * delta(pair, beside), self.label_smoothing) * share).sum()

        if name == "aot":
            ratio = values.chosen - values.rejected
            return term("aot", lambda pair, beside: ratio[pair] - beside)
        chosen = term("aot_unpaired.chosen", lambda pair, beside: values.chosen[pair] - beside)
        # A couple counts once, by its chosen side; its other side has its gradient alone.
        rejected = term("aot_unpaired.rejected", lambda pair, beside: beside - values.rejected[pair])
        return chosen + (rejected - rejected.detach())


_BESIDE: dict[str, list[tuple[str, tuple[str, str]]]] = {
    "aot": [("aot", ("policy", "reference"))],
    "aot_unpaired": [
        ("aot_unpaired.chosen", ("chosen", "rejected")),
        ("aot_unpaired.rejected", ("rejected", "chosen")),
    ],
}
"""By loss, the columns that the pre-pass gives: whose places are taken, and whose values stand there."""


def _sides(columns: Mapping[str, Tensor], batch: FeedbackBatch) -> dict[str, NDArray[np.float64]]:
    """What is sorted, and what each pair counts, float64 (pairs,) each."""
    pairs = preference_pairs(batch)
    policy = columns["policy.logp"].detach().double()
    known = columns.get("reference.logp")
    reference = policy.new_zeros(policy.shape) if known is None else known.detach().double()
    ratios = reply_sums(policy - reference, batch).cpu().numpy()
    return {
        "policy": gaps(reply_sums(policy, batch), pairs).cpu().numpy(),
        "reference": gaps(reply_sums(reference, batch), pairs).cpu().numpy(),
        "chosen": ratios[pairs.chosen],
        "rejected": ratios[pairs.rejected],
        "weight": record_weights(batch)[pairs.records],
    }


@dataclass(frozen=True)
class _Pool:
    """An update's values of one side in order.

    Args:
        values: (different,), rising. places: (different + 1,), how many are before each by weight, and in all.
    """

    values: NDArray[np.float64]
    places: NDArray[np.float64]

    @classmethod
    def of(cls, times: Mapping[float, float]) -> _Pool:
        values, counts = (np.array(list(part), np.float64) for part in (times.keys(), times.values()))
        order = np.argsort(values)
        return cls(values[order], np.concatenate([[0.0], np.cumsum(counts[order])]))

    def couples(
        self, own: NDArray[np.float64], other: _Pool
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """(pair, beside, share): the values of another pool in the places of each of these, which sum to 1 a pair."""
        at = np.searchsorted(self.values, own)
        pair: list[int] = []
        beside: list[float] = []
        share: list[float] = []
        for number, (low, high) in enumerate(zip(self.places[at].tolist(), self.places[at + 1].tolist(), strict=True)):
            one = int(np.searchsorted(other.places, low, "right")) - 1
            while one < len(other.values) and other.places[one] < high:
                pair.append(number)
                beside.append(float(other.values[one]))
                taken = min(high, other.places[one + 1]) - max(low, other.places[one])
                share.append(float(taken / (high - low)))
                one += 1
        return np.array(pair, np.int64), np.array(beside, np.float64), np.array(share, np.float64)


def dpo_objective(**options: Any) -> DPOObjective:
    """DPO, with the pre-pass that sorting takes where one of the losses sorts."""
    return (AOTObjective if set(options.get("loss_type", ())) & {*AOT} else DPOObjective)(**options)
