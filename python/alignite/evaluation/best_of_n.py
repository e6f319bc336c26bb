"""Best of N: what taking the best-scored of N samples gives, for every N up to the pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from alignite.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Pool:
    """The samples of one problem.

    Args:
        scores: float64 (samples,), what chooses.
        values: float64 (samples,), what is wanted, such as 1 for a right answer; NaN where a sample has no answer.
    """

    scores: NDArray[np.float64]
    values: NDArray[np.float64]


def expected_best(scores: ArrayLike, values: ArrayLike | None = None, n: int = 1) -> float:
    """The mean, over all sets of n of the N samples, of the value of the set's best-scored sample.

    With scores in rising order that is sum_i v_(i) C(i - 1, n - 1) / C(N, n); samples with equal scores share what they
    would have. Without values the scores themselves: E[max of n].

    Raises:
        UsageError: n is not between 1 and N, or a score is not finite.
    """
    s = np.asarray(scores, dtype=np.float64)
    v = s if values is None else np.asarray(values, dtype=np.float64)
    total = len(s)
    if not 1 <= n <= total:
        raise UsageError(f"n is {n} and there are {total} samples", fix="n is between 1 and the samples")
    if not np.isfinite(s).all() or s.shape != v.shape:
        raise UsageError("a score is not finite, or the values do not fit the scores", fix="leave such samples out")
    order = np.argsort(s, kind="stable")
    s, v = s[order], v[order]
    weights = np.array([comb(i, n - 1) / comb(total, n) for i in range(total)])
    _, group = np.unique(s, return_inverse=True)
    size = np.bincount(group)
    return float((np.bincount(group, weights) / size)[group] @ v)


def best_of_n_curve(pools: Sequence[Pool], ns: Sequence[int] | None = None) -> dict[int, float]:
    """By n, the mean over problems of :func:`expected_best`, without sampling.

    A problem with fewer than n samples gives what all of its samples give. Samples without an answer are left out; a
    problem without any sample counts as 0.

    Raises:
        UsageError: there is no problem, or a sample with an answer has a score that is not finite.
    """
    if not pools:
        raise UsageError("there is no problem", fix="give a pool of samples for each")
    _check_pools(pools)
    answered = [(pool.scores[~np.isnan(pool.values)], pool.values[~np.isnan(pool.values)]) for pool in pools]
    wanted = list(ns) if ns is not None else list(range(1, max(len(pool.scores) for pool in pools) + 1))
    return {
        n: float(np.mean([expected_best(s, v, min(n, len(s))) if len(s) else 0.0 for s, v in answered])) for n in wanted
    }


def _check_pools(pools: Sequence[Pool]) -> None:
    for number, pool in enumerate(pools):
        if pool.scores.ndim != 1 or pool.scores.shape != pool.values.shape:
            raise UsageError(
                f"scores are of shape {pool.scores.shape} and values of shape {pool.values.shape}",
                where=f"problem {number}",
                fix="give one of each a sample",
            )
        answered = ~np.isnan(pool.values)
        for name, numbers in (("score", pool.scores), ("value", pool.values)):
            wrong = np.flatnonzero(~np.isfinite(numbers) & answered)
            if len(wrong):
                raise UsageError(
                    f"the {name} of sample {int(wrong[0])} is {numbers[wrong[0]]}",
                    where=f"problem {number}",
                    fix="leave such samples out",
                )


def best_of_n_trials(
    pools: Sequence[Pool], ns: Sequence[int], *, trials: int = 400, seed: int = 0
) -> dict[int, tuple[float, float]]:
    """By n, mean and standard deviation over trials of the share of problems solved: PRM800K's protocol.

    A trial draws n samples of each problem without replacement, leaves those without an answer out, takes the
    best-scored (the first drawn of equals) and averages its value over the problems; a problem without an answer in
    its draw counts as 0 (openai/prm800k, eval/eval.py).

    Raises:
        UsageError: there is no problem, no trial, n is more than the samples of a problem, or a sample with an answer
            has a score that is not finite.
    """
    if not pools or trials < 1:
        raise UsageError("there is no problem or no trial", fix="give a pool of samples for each problem")
    _check_pools(pools)
    smallest = min(len(pool.scores) for pool in pools)
    if not all(1 <= n <= smallest for n in ns):
        raise UsageError(f"n is {max(ns)} and a problem has {smallest} samples", fix="n is between 1 and the samples")
    generator = np.random.default_rng(seed)
    found = np.zeros((trials, len(ns)))
    for trial in range(trials):
        for pool in pools:
            order = generator.permutation(len(pool.scores))
            for column, n in enumerate(ns):
                drawn = order[:n]
                drawn = drawn[~np.isnan(pool.values[drawn])]
                if len(drawn):
                    found[trial, column] += pool.values[drawn[np.argmax(pool.scores[drawn])]]
    shares = found / len(pools)
    return {n: (float(shares[:, column].mean()), float(shares[:, column].std())) for column, n in enumerate(ns)}
