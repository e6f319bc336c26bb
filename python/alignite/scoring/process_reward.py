"""Process reward models: the probability that each step of a solution is right, and one score of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from alignite.data.prepared import split_windows
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import NumericsError, UsageError
from alignite.models.routing import hidden_states
from alignite.scoring.files import TextScorer
from alignite.scoring.reward import Text, encode_row, inference, positions_of
from alignite.types import NO_PARENT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

AGGREGATIONS = ("product", "min", "last", "mean", "geometric_mean")
SEPARATOR = "\n"
"""What stands between two steps, in training as in search."""


def aggregate_steps(probabilities: Sequence[float] | NDArray[np.float64], how: str = "product") -> float:
    """One score of a solution from the probabilities of its steps, in 0 to 1.

    ``product`` is the probability that all steps are right (PRM800K, arXiv 2305.20050, section 2.6), which falls with
    the number of steps; ``min`` of the same section; ``last``; ``mean``; ``geometric_mean``, which does not fall so.

    Raises:
        UsageError: no such aggregation, or no step.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if how not in AGGREGATIONS:
        raise UsageError(f"there is no aggregation {how!r}", fix=f"it is one of {', '.join(AGGREGATIONS)}")
    if not len(values):
        raise UsageError("a solution has no step", fix="leave it out")
    if how == "geometric_mean":
        return float(values.prod() ** (1 / len(values)) if values.min() > 1e-30 else 0.0)
    found = {"product": values.prod(), "min": values.min(), "last": values[-1], "mean": values.mean()}
    return float(found[how])


class ProcessRewardModel(TextScorer):
    """A process reward model and its own tokenizer.

    Args:
        model: a causal LM whose score head has two classes (wrong, right) or three (wrong, neutral, right), of
            :func:`alignite.models.reward_files.load_reward_model`.
        tokenizer: the model's.
        aggregation: see :func:`aggregate_steps`.
        neutral_is_good: whether a neutral step counts as right; of models with three classes.
        max_tokens: tokens in a forward pass; one solution may be longer.

    Raises:
        UsageError: the model has no such head. TokenizerError: the tokenizer does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: ChatTokenizer,
        *,
        aggregation: str = "product",
        neutral_is_good: bool = True,
        max_tokens: int = 8192,
    ) -> None:
        head: Any = getattr(model, "score", None)
        if head is None or head.out_features not in (2, 3):
            raise UsageError(
                "the model has no head with two or three classes",
                fix="train one with `alignite prm`; in Python, load_reward_model(heads=2) gives a new head",
            )
        if aggregation not in AGGREGATIONS:
            raise UsageError(f"there is no aggregation {aggregation!r}", fix=f"it is one of {', '.join(AGGREGATIONS)}")
        super().__init__(model, tokenizer)
        self.aggregation, self.neutral_is_good, self.max_tokens = aggregation, neutral_is_good, max_tokens

    def step_scores(
        self, prompts: Sequence[Text], solutions: Sequence[str | Sequence[str]]
    ) -> list[NDArray[np.float64]]:
        """The probability that each step is right, float64 (steps,) a solution, each encoded once.

        Args:
            prompts: the problems, texts or lists of messages.
            solutions: lists of steps, or texts whose lines that are not empty are the steps.

        Raises:
            UsageError: there is not one solution for each prompt. DataError: a solution has no step or is too long
                for the model, or two steps end in one token. NumericsError: a probability is not finite.
        """
        if len(prompts) != len(solutions):
            raise UsageError(
                f"there are {len(prompts)} prompts and {len(solutions)} solutions", fix="give a prompt for each"
            )
        rows = []
        for number, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
            steps = split_steps(solution) if isinstance(solution, str) else list(solution)
            # Any rating will do: it marks the tokens that are read.
            row = {"prompt": prompt, "completions": steps, "labels": [1] * len(steps)}
            rows.append(encode_row(self.tokenizer, row, "stepwise", f"solution {number}", positions_of(self.model)))
        found: list[NDArray[np.float64]] = [np.zeros(0)] * len(rows)
        # Like lengths together, for models whose attention is padded.
        order = np.argsort([len(ids) for ids, _ in rows], kind="stable")
        with inference(self.model):
            for part in split_windows(order, np.array([len(rows[n][0]) for n in order]), len(rows), self.max_tokens):
                numbers = part.tolist()
                right = self._right([rows[n] for n in numbers])
                counts = [int((rows[n][1] >= 0).sum()) for n in numbers]
                for number, values in zip(numbers, np.split(right, np.cumsum(counts)[:-1]), strict=True):
                    if not np.isfinite(values).all():
                        raise NumericsError(
                            "the probability of a step is not finite",
                            where=f"solution {number}",
                            fix="check the model's weights",
                        )
                    found[number] = values
        return found

    def _right(self, rows: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]) -> NDArray[np.float64]:
        """The probability that each marked step of these rows is right, float64 (steps of all,)."""
        device = next(self.model.parameters()).device
        lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        layout = np.stack([starts, lengths, np.full(len(rows), NO_PARENT)], axis=1)
        flat, labels = (torch.from_numpy(np.concatenate(column).astype(np.int64)) for column in zip(*rows, strict=True))
        positions = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))
        hidden = hidden_states(self.model, flat.to(device), positions.to(device), layout)
        classes = cast("Any", self.model).score(hidden[(labels >= 0).to(device)]).double().softmax(1)
        right = classes[:, 1:].sum(1) if self.neutral_is_good else classes[:, -1]
        return np.asarray(right.cpu().numpy())

    def score(self, prompts: Sequence[Text], completions: Sequence[str | Sequence[str]]) -> NDArray[np.float64]:
        """One score a solution, float64 (solutions,): the aggregation of :meth:`step_scores`, which raises the same."""
        steps = self.step_scores(prompts, completions)
        return np.array([aggregate_steps(values, self.aggregation) for values in steps])


def split_steps(solution: str) -> list[str]:
    """The lines of a solution that are not empty."""
    return [line for line in solution.split(SEPARATOR) if line.strip()]


def outcome_steps(prompt: Text, solution: str, label: bool) -> dict[str, Any]:
    """A stepwise row whose steps all have the outcome of the solution, and which says so in ``label_source``.

    That a solution ends wrong does not say which step was: such labels are noise for steps, and exact for the last.
    """
    steps = split_steps(solution)
    return {"prompt": prompt, "completions": steps, "labels": [bool(label)] * len(steps), "label_source": "outcome"}
