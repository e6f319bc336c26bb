"""Quark: sort replies into quantiles of reward, name the quantile in the prompt, and learn to follow the name."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from alignite.config.options import check_bound
from alignite.errors import ConfigError, DataError, UsageError
from alignite.objectives.odd_rows import LABELLED_BAD
from alignite.objectives.pieces import WithoutState, check_choice
from alignite.objectives.ranking import POLICY, REFERENCE
from alignite.objectives.rows import ranked, usable, with_marker
from alignite.types import IGNORE, FeedbackBatch, LossOutput, SftBatch, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def quantiles(rewards: Sequence[float], num_quantiles: int) -> NDArray[np.int64]:
    """The quantile of each of a pool's rewards, (rewards,): 0 holds the best.

    Sizes differ by at most 1, the better quantiles being the larger; equal rewards stay in the pool's order.

    Raises:
        UsageError: a reward is NaN, or there are fewer rewards than quantiles.
    """
    values = np.asarray(rewards, np.float64)
    if np.isnan(values).any():
        raise UsageError(f"reward {int(np.flatnonzero(np.isnan(values))[0])} is NaN", fix="leave such replies out")
    if not 1 <= num_quantiles <= len(values):
        raise UsageError(
            f"{num_quantiles} quantiles of {len(values)} rewards",
            fix="give --num_quantiles (num_quantiles) from 1 to as many as there are rewards",
        )
    found = np.empty(len(values), np.int64)
    for quantile, part in enumerate(np.array_split(np.argsort(-values, kind="stable"), num_quantiles)):
        found[part] = quantile
    return found


def quark_rows(
    rows: Sequence[Mapping[str, Any]], num_quantiles: int = 5, marker: str = "<rwd_{quantile}>"
) -> list[dict[str, Any]]:
    """Rows of prompt, completion and label, whose prompt begins with the marker of the completion's quantile.

    Args:
        rows: ranked rows (prompt, completions, scores), whose replies form one pool. A prompt is a text, or messages;
            then the marker begins the last user message.
        num_quantiles: K. Generate under the marker of quantile 0.
        marker: text that names a quantile; new tokens of the tokenizer or plain words.

    Raises:
        UsageError: as :func:`quantiles`. DataError: a row has no replies, or not a number for each; or a prompt of
            messages has no user message.
    """
    scored = [ranked(row, number) for number, row in enumerate(rows, 1)]
    places = iter(quantiles([score for _, _, scores in scored for score in scores], num_quantiles).tolist())
    return [row for prompt, texts, _ in scored for row in _marked(prompt, texts, places, marker)]


def _marked(prompt: Any, texts: Sequence[Any], places: Iterator[int], marker: str) -> list[dict[str, Any]]:
    return [
        # Every reply is imitated, under its marker; the label says so to the format.
        {"prompt": with_marker(prompt, marker.format(quantile=next(places))), "completion": text, "label": True}
        for text in texts
    ]


@dataclass(frozen=True, kw_only=True)
class QuarkObjective(WithoutState):
    """L = mean over scored tokens of (-log pi(y_t | k, x, y_<t) + kl_coef * KL_t - entropy_coef * H_t).

    k is the reward marker in the prompt, KL_t the KL(pi || ref) over the whole vocabulary where y_t is predicted, and
    H_t the policy's entropy there, both with their gradients. With ``kl`` k3, KL_t is u - 1 - log u of the token that
    stands there, u = ref(y_t) / pi(y_t): never negative, and unbiased only for replies that the policy sampled.

    Args:
        kl_coef: 0 needs no reference model.
        kl: ``exact`` or ``k3``.
        entropy_coef: the authors' code takes 0.06.
        num_quantiles: K, of the rows that are made of rankings, whose weights are not read; 0 where the data's rows
            have their markers.
        marker: text that names a ``{quantile}``.

    Source: Quark (arXiv 2205.13636, equation 3, and the authors' main.py, whose divergence this is); k3 is of Schulman,
    "Approximating KL divergence" (2020).

    Raises:
        ConfigError: an option is out of its range.
    """

    kl_coef: float = 0.05
    kl: str = "exact"
    entropy_coef: float = 0.0
    num_quantiles: int = 5
    marker: str = "<rwd_{quantile}>"
    makes: ClassVar[str] = "unpaired"
    unread: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("kl_coef", self.kl_coef, 0, True)
        check_choice("kl", self.kl, ("exact", "k3"))
        check_bound("entropy_coef", self.entropy_coef, 0, True)
        check_bound("num_quantiles", self.num_quantiles, 0, True)
        if "{quantile}" not in self.marker or self.marker.replace("{quantile}", "").count("{"):
            raise ConfigError(f"marker is {self.marker!r}", fix="write {quantile}, and no other brace, in it")

    @property
    def takes(self) -> str:
        return "ranked" if self.num_quantiles else ""

    def rows(self, rows: Iterable[Mapping[str, Any]], bad: Callable[[DataError], None]) -> Iterator[dict[str, Any]]:
        """The rows of :func:`quark_rows`, as :class:`alignite.types.RowMaker` says: scores first, then each row."""

        def scored(row: Mapping[str, Any]) -> list[tuple[Any, Sequence[Any], list[float]]]:
            with_marker(row["prompt"], "")  # what has no place for a marker has no place in the pool
            return [ranked(row, 1)]

        pool = array("d")
        for ((_, _, scores),) in usable(rows, scored, bad):
            pool.extend(scores)
        places = iter(quantiles(pool, self.num_quantiles).tolist())
        for ((prompt, texts, _),) in usable(rows, scored, lambda _: None):
            yield from _marked(prompt, texts, places, self.marker)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        return {LABELLED_BAD: "this method does not read labels and imitates it, under the marker in its prompt"}

    @property
    def columns(self) -> frozenset[str]:
        names = set(POLICY)
        if self.kl_coef:
            names |= REFERENCE if self.kl == "k3" else {"policy.kl"}
        return frozenset(names | ({"policy.graphed_entropy"} if self.entropy_coef else set()))

    def counts(self, batch: SftBatch | FeedbackBatch) -> dict[str, float]:
        """Scored tokens by their weights, for each term."""
        scored = batch.labels != IGNORE
        count = float(scored.sum() if batch.weights is None else batch.weights[scored].double().sum())
        used = {"nll": True, "kl": bool(self.kl_coef), "entropy": bool(self.entropy_coef)}
        return {name: count for name, is_used in used.items() if is_used}

    def loss(self, columns: Mapping[str, Tensor], batch: SftBatch | FeedbackBatch) -> LossOutput:
        """Terms ``nll``, ``kl`` and ``entropy``; metrics ``kl`` or ``kl_k3``, and ``entropy``, nats a token."""
        logp, counts = columns["policy.logp"], self.counts(batch)
        weights = logp.new_ones(()) if batch.weights is None else batch.weights[batch.labels != IGNORE]
        terms = {"nll": Term(-(logp * weights).sum(), counts["nll"])}
        metrics = {"entropy": (float(columns["policy.entropy"].sum()), float(logp.numel()))}
        if self.kl_coef:
            if self.kl == "k3":
                ratio = columns["reference.logp"] - logp
                divergence = ratio.expm1() - ratio
            else:
                divergence = columns["policy.kl"]
            terms["kl"] = Term((divergence * weights).sum(), counts["kl"], self.kl_coef)
            metrics["kl" if self.kl == "exact" else "kl_k3"] = (float(divergence.detach().sum()), float(logp.numel()))
        if self.entropy_coef:
            entropy = -(columns["policy.graphed_entropy"] * weights).sum()
            terms["entropy"] = Term(entropy, counts["entropy"], self.entropy_coef)
        return LossOutput(terms, metrics)
