"""Strengths of items from comparisons and rankings by maximum likelihood: Bradley-Terry, Davidson, Plackett-Luce."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

from alignite.errors import DataError, NumericsError, ResourceError, UsageError
from alignite.feedback.rankings import ELO_PER_NAT, Comparisons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    # Log-likelihood, gradient and negative Hessian of the parameters.
    Likelihood = Callable[[Floats], tuple[float, Floats, Floats]]
    # Cells of like comparisons: first, second, outcome, how many.
    Cells = tuple[Ints, Ints, Floats, Floats]

# The Fisher information is a dense matrix of items by items.
MOST_ITEMS = 10_000
MAX_STEPS = 100


@dataclass(frozen=True)
class Strengths:
    """Strengths in nats with mean 0: P(i beats j) = 1 / (1 + exp(s_j - s_i)) when there are no ties.

    Args:
        items: what was compared.
        strengths: float64 (items,).
        covariance: float64 (items, items), the inverse of the Fisher information where strengths sum to 0, or of the
            posterior's where there is a prior.
        tie: Davidson's nu; 0 where ties count half.
        log_likelihood: at the fit, without the prior, in nats.
        low, high: float64 (items,), a bootstrap's bounds; None when there was none.
        failed: the bootstrap's samples that had no finite fit and were left out.
    """

    items: tuple[Hashable, ...]
    strengths: Floats
    covariance: Floats
    tie: float
    log_likelihood: float
    low: Floats | None = None
    high: Floats | None = None
    failed: int = 0

    def intervals(self, level: float = 0.95) -> Floats:
        """Bounds of each strength, (items, 2): the bootstrap's at its own level if there was one, else Fisher's."""
        if self.low is not None and self.high is not None:
            return np.stack([self.low, self.high], axis=1)
        reach = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(np.diag(self.covariance))
        return np.stack([self.strengths - reach, self.strengths + reach], axis=1)

    def difference(self, one: Hashable, other: Hashable, level: float = 0.95) -> tuple[float, float, float]:
        """Strength of ``one`` above ``other`` with Fisher's bounds, in nats.

        Raises:
            UsageError: there is no such item.
        """
        i, j = self._number(one), self._number(other)
        gap = float(self.strengths[i] - self.strengths[j])
        variance = self.covariance[i, i] + self.covariance[j, j] - 2 * self.covariance[i, j]
        reach = NormalDist().inv_cdf(0.5 + level / 2) * float(np.sqrt(max(variance, 0.0)))
        return gap, gap - reach, gap + reach

    def probability(self, one: Hashable, other: Hashable) -> float:
        """The chance that ``one`` beats ``other``; with Davidson's ties, that it wins outright."""
        half = float(self.strengths[self._number(one)] - self.strengths[self._number(other)]) / 2
        return float(1.0 / (1.0 + np.exp(-2 * half) + self.tie * np.exp(-half)))

    def elo(self, mean: float = 1500.0) -> Floats:
        """The strengths in Elo points around ``mean``: 1 nat is 400 / ln 10."""
        return mean + self.strengths * ELO_PER_NAT

    def _number(self, item: Hashable) -> int:
        try:
            return self.items.index(item)
        except ValueError:
            raise UsageError(f"there is no item {item!r}", fix="name one of the fit's items") from None


def bradley_terry(
    comparisons: Comparisons,
    *,
    l2: float = 0.0,
    ties: Literal["half", "davidson"] = "half",
    bootstrap: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> Strengths:
    """Bradley-Terry strengths by Newton's method; the order of comparisons does not matter.

    Source: Bradley and Terry (1952); ties as half a win for each side, or Davidson (1970):
    P(tie) proportional to nu sqrt(exp(s_i + s_j)), where nu is fitted along.

    Args:
        comparisons: outcomes between 0 and 1; for ``davidson`` 0, .5 and 1 only.
        l2: precision of a Gaussian prior: l2 / 2 sum s^2 is subtracted from the log-likelihood.
        ties: see above.
        bootstrap: so many samples of the comparisons are fitted for percentile intervals; 0 for Fisher's, which are too
            wide where many ties or soft labels count as shares of a win.
        level, seed: of the bootstrap.

    Raises:
        DataError: without a prior, some items never lost to the others or were never compared with them, so that no
            finite strengths are the likeliest; or an outcome does not suit ``davidson``.
        ResourceError: there are more items than the dense information matrix allows.
        UsageError: an option is out of range.
    """
    _check(len(comparisons.items), l2, level, bootstrap)
    table = np.stack([comparisons.first, comparisons.second, comparisons.outcome], axis=1)
    unique, counts = np.unique(table, axis=0, return_counts=True)
    first, second = unique[:, 0].astype(np.int64), unique[:, 1].astype(np.int64)
    outcome, weight = unique[:, 2], counts.astype(np.float64)
    if ties == "davidson":
        bad = ~np.isin(outcome, (0.0, 0.5, 1.0))
        if bad.any():
            raise DataError(
                f"an outcome is {outcome[bad][0]}",
                why="Davidson's model knows wins, losses and ties",
                fix="use ties='half' for soft labels",
            )

    def fit(weights: Floats) -> Strengths:
        seen = weights > 0
        cells = first[seen], second[seen], outcome[seen], weights[seen]
        return (_davidson if ties == "davidson" else _half)(comparisons.items, cells, l2)

    return _bootstrapped(fit, weight, bootstrap, level, seed)


def plackett_luce(
    rankings: Sequence[Sequence[Hashable]],
    *,
    l2: float = 0.0,
    bootstrap: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> Strengths:
    """Plackett-Luce strengths: the best is drawn with chance proportional to exp(s), then the best of the rest.

    Source: Plackett (1975), Luce (1959). For rankings of two it is Bradley-Terry.

    Args:
        rankings: items, best first; each may rank other items. Ties have no place in it.
        l2, bootstrap, level, seed: as in :func:`bradley_terry`; whole rankings are drawn.

    Raises:
        DataError: a ranking has one item or one item twice, there are none, or no finite strengths are the likeliest.
        ResourceError: there are more items than the dense information matrix allows.
        UsageError: an option is out of range.
    """
    numbers: dict[Hashable, int] = {}
    coded: dict[tuple[int, ...], int] = {}
    for place, ranking in enumerate(rankings):
        if len(ranking) < 2 or len(set(ranking)) < len(ranking):
            raise DataError(
                "a ranking needs two or more items, each of them once",
                where=f"ranking {place}",
                why=f"it is {list(ranking)!r:.80}",
                fix="leave it out; for ties use bradley_terry on pairs",
            )
        key = tuple(numbers.setdefault(item, len(numbers)) for item in ranking)
        coded[key] = coded.get(key, 0) + 1
    if not coded:
        raise DataError("there are no rankings", fix="give at least one")
    _check(len(numbers), l2, level, bootstrap)
    orders = sorted(coded, key=len)
    lengths = np.array([len(order) for order in orders])

    def fit(weights: Floats) -> Strengths:
        groups = []
        for length in np.unique(lengths):
            chosen = np.flatnonzero((lengths == length) & (weights > 0))
            if len(chosen):
                groups.append((np.array([orders[i] for i in chosen]), weights[chosen]))
        edges = np.concatenate([np.stack([o[:, :-1].ravel(), o[:, 1:].ravel()]) for o, _ in groups], axis=1)
        if l2 == 0:
            _need_connected(tuple(numbers), edges[0], edges[1])
        return _strengths(tuple(numbers), lambda s: _plackett_luce(groups, s), l2)

    return _bootstrapped(fit, np.array([coded[order] for order in orders], dtype=np.float64), bootstrap, level, seed)


def _check(items: int, l2: float, level: float, bootstrap: int) -> None:
    if not (l2 >= 0 and 0 < level < 1 and bootstrap >= 0):
        raise UsageError(
            f"l2 is {l2}, level is {level}, bootstrap is {bootstrap}",
            fix="l2 and bootstrap are 0 or more, level lies between 0 and 1",
        )
    if items > MOST_ITEMS:
        raise ResourceError(
            f"there are {items} items to fit",
            why=f"their information matrix would take {items * items * 8 / 2**30:.1f} GiB several times",
            fix=f"fit {MOST_ITEMS} at most, or rate them by Elo",
        )


def _half(items: tuple[Hashable, ...], cells: Cells, l2: float) -> Strengths:
    first, second, outcome, weight = cells
    if l2 == 0:
        won, lost = outcome > 0, outcome < 1
        winners = np.concatenate([first[won], second[lost]])
        losers = np.concatenate([second[won], first[lost]])
        _need_connected(items, winners, losers)
    n = len(items)

    def likelihood(s: Floats) -> tuple[float, Floats, Floats]:
        gap = s[first] - s[second]
        value = -weight * (outcome * np.logaddexp(0, -gap) + (1 - outcome) * np.logaddexp(0, gap))
        p = np.exp(-np.logaddexp(0, -gap))
        slope, curve = weight * (outcome - p), weight * p * (1 - p)
        return float(value.sum()), _to_items(first, second, slope, n), _information(first, second, curve, n)

    return _strengths(items, likelihood, l2)


def _davidson(items: tuple[Hashable, ...], cells: Cells, l2: float) -> Strengths:
    first, second, outcome, weight = cells
    tied = outcome == 0.5
    if not tied.any():
        return _half(items, cells, l2)
    if tied.all():
        raise DataError("every comparison is a tie", fix="fit with ties='half', which gives equal strengths")
    _need_finite_davidson(items, first, second, outcome, l2)
    n = len(items)

    def likelihood(x: Floats) -> tuple[float, Floats, Floats]:
        half = (x[first] - x[second]) / 2
        log_z = np.logaddexp(np.logaddexp(half, -half), x[n])
        win, loss, tie = np.exp(half - log_z), np.exp(-half - log_z), np.exp(x[n] - log_z)
        value = weight * (np.where(tied, x[n], (2 * outcome - 1) * half) - log_z)
        slope = weight * ((2 * outcome - 1) - (win - loss)) / 2
        gradient = np.append(_to_items(first, second, slope, n), (weight * (tied - tie)).sum())
        information = np.zeros((n + 1, n + 1))
        curve = weight * ((win + loss) - (win - loss) ** 2) / 4
        information[:n, :n] = _information(first, second, curve, n)
        cross = _to_items(first, second, -weight * tie * (win - loss) / 2, n)
        information[n, :n] = information[:n, n] = cross
        information[n, n] = (weight * tie * (1 - tie)).sum()
        return float(value.sum()), gradient, information

    return _strengths(items, likelihood, l2, extra=1)


def _plackett_luce(groups: list[tuple[Ints, Floats]], s: Floats) -> tuple[float, Floats, Floats]:
    n = len(s)
    value, gradient, information = 0.0, np.zeros(n), np.zeros((n, n))
    for orders, weights in groups:
        length = orders.shape[1]
        own = s[orders] - s[orders].max(axis=1, keepdims=True)
        e = np.exp(own)
        rest = np.cumsum(e[:, ::-1], axis=1)[:, ::-1]
        value += float((weights * (own - np.log(rest))[:, :-1].sum(axis=1)).sum())
        rest[:, -1] = np.inf  # the last one is not drawn
        chance = e * np.cumsum(1 / rest, axis=1)
        picked = np.ones((1, length))
        picked[0, -1] = 0.0
        gradient += np.bincount(orders.ravel(), (weights[:, None] * (picked - chance)).ravel(), n)
        squares = np.cumsum(1 / rest**2, axis=1)
        for q in range(length):
            for r in range(length):
                cell = -e[:, q] * e[:, r] * squares[:, min(q, r)]
                np.add.at(information, (orders[:, q], orders[:, r]), weights * (cell + (chance[:, q] if q == r else 0)))
    return value, gradient, information


def _to_items(first: Ints, second: Ints, slope: Floats, n: int) -> Floats:
    return np.bincount(first, slope, n).astype(np.float64) - np.bincount(second, slope, n)


def _information(first: Ints, second: Ints, curve: Floats, n: int) -> Floats:
    found = np.zeros((n, n))
    np.add.at(found, (first, second), -curve)
    np.add.at(found, (second, first), -curve)
    found[np.diag_indices(n)] -= found.sum(axis=1)
    return found


def _strengths(items: tuple[Hashable, ...], likelihood: Likelihood, l2: float, extra: int = 0) -> Strengths:
    """Newton's method with halved steps on a concave log-likelihood of the strengths and ``extra`` parameters."""
    n = len(items)
    x = np.zeros(n + extra)
    # Strengths may be moved together. A prior holds them at mean 0, else this matrix does, which changes nothing else.
    gauge = np.zeros((n + extra, n + extra))
    gauge[:n, :n] = l2 * np.eye(n) if l2 > 0 else 1.0 / n

    def posterior(x: Floats) -> tuple[float, Floats, Floats]:
        value, gradient, information = likelihood(x)
        gradient[:n] -= l2 * x[:n]
        return value - l2 / 2 * float(x[:n] @ x[:n]), gradient, information + gauge

    value, gradient, information = posterior(x)
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(information, gradient)
        size = 1.0
        new = posterior(x + step)
        while not new[0] >= value - 1e-12 * abs(value) and size > 1e-9:
            size /= 2
            new = posterior(x + size * step)
        x = x + size * step
        value, gradient, information = new
        if np.abs(size * step).max() < 1e-10:
            break
    else:
        raise NumericsError(
            f"the strengths did not settle in {MAX_STEPS} steps",
            why=f"the largest slope left is {np.abs(gradient).max():.3g}",
            fix="give a prior, such as l2=0.01",
        )
    covariance: Floats = np.linalg.inv(information)[:n, :n].astype(np.float64)
    if l2 == 0:
        covariance = covariance - 1.0 / n
    strengths = x[:n] - x[:n].mean()
    plain = value + l2 / 2 * float(x[:n] @ x[:n])
    return Strengths(items, strengths, covariance, float(np.exp(x[n])) if extra else 0.0, plain)


def _need_connected(items: tuple[Hashable, ...], winners: Ints, losers: Ints) -> None:
    """Ford's condition (1957): of any two groups each beat the other at least once."""
    for ends, verdict in (((winners, losers), "never lost to"), ((losers, winners), "never won against")):
        reached = np.zeros(len(items), dtype=bool)
        reached[0] = True
        before = 0
        while before != (before := int(reached.sum())):
            reached[ends[1][reached[ends[0]]]] = True
        if not reached.all():
            outside = int(np.argmin(reached))
            raise DataError(
                "the comparisons give no finite strengths",
                why=f"{items[outside]!r} and {int((~reached).sum()) - 1} others {verdict} {items[0]!r} and its like",
                fix="compare more, leave such items out, or give a prior: l2=0.01",
            )


def _need_finite_davidson(items: tuple[Hashable, ...], first: Ints, second: Ints, outcome: Floats, l2: float) -> None:
    """A tie is no loss here: strengths and nu may grow together, unless wins and ties form a circle against it.

    They can along directions v with v_i - v_j >= 2 for each win of i over j and |v_i - v_j| <= 2 for each tie: a system
    of differences, which has a solution exactly when Bellman and Ford's distances settle.
    """
    won, lost, tied = outcome == 1, outcome == 0, outcome == 0.5
    winners = np.concatenate([first[won], second[lost]])
    losers = np.concatenate([second[won], first[lost]])
    one = np.concatenate([first[tied], second[tied]])
    other = np.concatenate([second[tied], first[tied]])
    if l2 > 0:
        return
    _need_connected(items, np.concatenate([winners, one]), np.concatenate([losers, other]))
    tail, head = np.concatenate([winners, one]), np.concatenate([losers, other])
    length = np.concatenate([np.full(len(winners), -2.0), np.full(len(one), 2.0)])
    distance = np.zeros(len(items))
    for _ in range(len(items) + 1):
        before = distance.copy()
        np.minimum.at(distance, head, distance[tail] + length)
        if np.array_equal(before, distance):
            raise DataError(
                "the comparisons give no finite strengths under Davidson's model",
                why="wins lead one way only, and ties do not count as losses",
                fix="use ties='half', compare more, or give a prior: l2=0.01",
            )


def _bootstrapped(
    fit: Callable[[Floats], Strengths], weight: Floats, samples: int, level: float, seed: int
) -> Strengths:
    found = fit(weight)
    if samples == 0:
        return found
    rng = np.random.default_rng(seed)
    total = int(weight.sum())
    fits, failed = [], 0
    for _ in range(samples):
        try:
            fits.append(fit(rng.multinomial(total, weight / total).astype(np.float64)).strengths)
        except DataError:
            failed += 1
    if failed > samples / 2:
        raise DataError(
            f"{failed} of {samples} bootstrap samples have no finite strengths",
            why="too few comparisons hold some items",
            fix="compare more, or give a prior: l2=0.01",
        )
    low, high = np.quantile(np.array(fits), [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return replace(found, low=low, high=high, failed=failed)
