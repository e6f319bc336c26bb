"""Contrast of instructions: an output must be likelier under its own instruction than under the others."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.config.options import check_bound, check_share
from alignite.objectives.odd_rows import ALL_TIE, ONE_REPLY, TIES
from alignite.objectives.pieces import WithoutState, as_tensor, reply_lengths, reply_sums
from alignite.objectives.ranking import POLICY, best_shares
from alignite.types import FeedbackBatch, LossOutput, Term

if TYPE_CHECKING:
    from torch import Tensor

SLOPE, VALUE, ALONE = "contrast.slope", "contrast.value", "contrast.alone"
"""The columns that the pre-pass gives, (replies,): the term's gradient by a reply's log-probability, its value, and 1
where a reply is its record's own and no other instruction of the update has it."""


@dataclass(frozen=True, kw_only=True)
class InstructionContrastObjective(WithoutState):
    """L = mean of c_it + contrast_weight * mean_i (log sum_k exp P_ik - P_ii) - entropy_coef * mean of H_it, where

    c_it = -(1 - e) log pi(o_it | q_i, o_i<t) - e * mean over the vocabulary of log pi(v | q_i, o_i<t), e the label
    smoothing, and H_it the policy's entropy there.

    P_ik = log pi(o_i | q_k) is output i under instruction k, summed over its tokens. A record is an instruction with
    its own output, the best reply, and outputs of other instructions; an output is known in another record by its
    tokens. The sum over k takes the records of the update, over micro-batches and ranks, that hold output i: a group
    of :func:`alignite.objectives.hir.contrast_rows` must therefore come in one update. The softmax over k comes from a
    pre-pass, so that how an update is split changes nothing.

    Args:
        contrast_weight: of the second term.
        label_smoothing: e, at least 0 and below 1. entropy_coef: of the last term.

    Source: HIR, hindsight instruction relabeling (arXiv 2302.05206, section 3.3).

    Raises:
        ConfigError: an option is out of its range.
    """

    contrast_weight: float = 1.0
    label_smoothing: float = 0.0
    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bound("contrast_weight", self.contrast_weight, 0, True)
        check_share("label_smoothing", self.label_smoothing, 1)
        check_bound("entropy_coef", self.entropy_coef, 0, True)

    @property
    def odd_rows(self) -> Mapping[str, str]:
        own = "each of its replies counts as the prompt's own"
        return {ONE_REPLY: "it is imitated only", ALL_TIE: own, TIES: "outputs of other instructions do"}

    @property
    def columns(self) -> frozenset[str]:
        names = {"policy.mean_logp"} if self.label_smoothing else set()
        return frozenset(POLICY | names | ({"policy.graphed_entropy"} if self.entropy_coef else set()))

    @property
    def prepass_columns(self) -> frozenset[str]:
        return frozenset({"policy.logp"})

    def prepass(
        self,
        columns: Sequence[Mapping[str, Tensor]],
        batches: Sequence[FeedbackBatch],
        total: Callable[[dict[str, float]], dict[str, float]],
    ) -> list[dict[str, Tensor]]:
        """``contrast.slope``, ``contrast.value`` and ``contrast.alone`` of each micro-batch."""
        sums = [
            reply_sums(found["policy.logp"].detach(), batch).double().cpu().numpy()
            for found, batch in zip(columns, batches, strict=True)
        ]
        names = [_names(batch) for batch in batches]
        # Output i under instruction k, over all ranks: how often it stands there, its log-probability that many times,
        # and how often it stands there as the instruction's own.
        found: dict[str, float] = {}
        for batch, mine, values in zip(batches, names, sums, strict=True):
            for (output, prompt), logp, own in zip(mine, values.tolist(), best_shares(batch).tolist(), strict=True):
                for kind, amount in (("times", 1.0), ("logp", logp), ("own", own)):
                    name = f"{output} {prompt} {kind}"
                    found[name] = found.get(name, 0.0) + amount
        found = total(found)
        prompts: dict[str, dict[str, tuple[float, float, float]]] = {}
        for name in [name for name in found if name.endswith(" times")]:
            output, prompt, _ = name.split(" ")
            times, logp, own = (found[f"{output} {prompt} {kind}"] for kind in ("times", "logp", "own"))
            prompts.setdefault(output, {})[prompt] = (times, logp / times, own)
        return [
            _softmax(mine, values, best_shares(batch), prompts, more["policy.logp"])
            for batch, mine, values, more in zip(batches, names, sums, columns, strict=True)
        ]

    def counts(self, batch: FeedbackBatch) -> dict[str, float]:
        """Tokens of own outputs for ``sft`` and ``entropy``, own outputs for ``contrast``."""
        own = best_shares(batch)
        tokens = float((own * reply_lengths(batch).double().cpu().numpy()).sum())
        counts = {"sft": tokens, "contrast": float(own.sum())}
        return counts | {"entropy": tokens} if self.entropy_coef else counts

    def loss(self, columns: Mapping[str, Tensor], batch: FeedbackBatch) -> LossOutput:
        """Terms ``sft``, ``contrast`` and ``entropy``; metrics ``own_probability``, the mean share of an output's own
        instruction in its softmax, ``alone``, the share of outputs that no other instruction has, and ``entropy``."""
        sums, counts, own = reply_sums(columns["policy.logp"], batch), self.counts(batch), best_shares(batch)
        slope, value = batch.given[SLOPE], batch.given[VALUE]
        # The value is the pre-pass's; what is added to it is 0 and has the gradient.
        contrast = value.sum() + (slope * (sums - sums.detach())).sum()
        shares, e = as_tensor(own, sums), self.label_smoothing
        said = (1 - e) * sums + e * reply_sums(columns["policy.mean_logp"], batch) if e else sums
        terms = {
            "sft": Term(-(said * shares).sum(), counts["sft"]),
            "contrast": Term(contrast, counts["contrast"], self.contrast_weight),
        }
        if self.entropy_coef:
            spread = reply_sums(columns["policy.graphed_entropy"], batch) * shares
            terms["entropy"] = Term(-spread.sum(), counts["entropy"], self.entropy_coef)
        entropy = columns["policy.entropy"]
        probabilities = own * np.exp(-value.double().cpu().numpy() / np.where(own > 0, own, 1.0))
        metrics = {
            "own_probability": (float(probabilities.sum()), counts["contrast"]),
            "alone": (float(batch.given[ALONE].sum()), counts["contrast"]),
            "entropy": (float(entropy.sum()), float(entropy.numel())),
        }
        return LossOutput(terms, metrics)


def _names(batch: FeedbackBatch) -> list[tuple[str, str]]:
    """A hash of each reply's tokens, and one of its prompt's."""
    ids = batch.input_ids.cpu().numpy()
    named = [hashlib.sha256(ids[s : s + n].tobytes()).hexdigest()[:24] for s, n, _ in batch.segments.tolist()]
    return [(named[one], named[batch.segments[one, 2]]) for one in batch.replies.tolist()]


def _softmax(
    names: Sequence[tuple[str, str]],
    logps: Any,
    own: Any,
    prompts: Mapping[str, Mapping[str, tuple[float, float, float]]],
    like: Tensor,
) -> dict[str, Tensor]:
    slope, value, alone = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
    for place, (output, prompt) in enumerate(names):
        known = prompts[output].values()
        highest = max(logp for _, logp, _ in known)
        log_sum = highest + math.log(sum(times * math.exp(logp - highest) for times, logp, _ in known))
        # An output that is several records' own counts for each; one that is nobody's own, such as where its record
        # is in another update, takes no part.
        owners = sum(mine for _, _, mine in known)
        slope[place] = owners * math.exp(prompts[output][prompt][1] - log_sum) - own[place]
        value[place] = own[place] * (log_sum - logps[place])
        alone[place] = own[place] if sum(times for times, _, _ in known) < 2 else 0.0
    return {SLOPE: as_tensor(slope, like), VALUE: as_tensor(value, like), ALONE: as_tensor(alone, like)}
