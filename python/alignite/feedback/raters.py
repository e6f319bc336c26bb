"""Who rates well: ratings from rows, hidden gold items, a report by rater, screening, super raters."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from alignite.data.survey import Count
from alignite.errors import DataError, UsageError
from alignite.feedback.agreement import MISSING, Share, cohen_kappa, wilson
from alignite.feedback.rankings import pairs_from_rankings
from alignite.feedback.rows import BadRows, OnBadRow, need

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
SCREENING_CUT = 0.75
"""InstructGPT's soft cut (arXiv 2203.02155, appendix B.1)."""


@dataclass(frozen=True)
class Ratings:
    """Ratings by number.

    Args:
        items, raters, labels: what the numbers stand for; labels are sorted where they can be.
        item, rater, label: int64 (n,).
        gold: int64 (items,), the right label's number, or -1.
        bad: by reason, the rows that were left out.
    """

    items: tuple[Hashable, ...]
    raters: tuple[Hashable, ...]
    labels: tuple[Hashable, ...]
    item: NDArray[np.int64]
    rater: NDArray[np.int64]
    label: NDArray[np.int64]
    gold: NDArray[np.int64]
    bad: dict[str, Count]

    @classmethod
    def of(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        known: Collection[Hashable] | None = None,
        on_bad_row: OnBadRow = "error",
    ) -> Ratings:
        """Ratings from rows ``item``, ``rater``, one of ``label``, ``pair`` and ``rank``, and ``gold`` in its form.

        A ``label`` is any category. A ``pair`` is 1 where the first of two replies is better, 0 where the second is,
        .5 for a tie. ``rank`` holds the ranks of an item's replies, 1 the best, and becomes one pair for each two of
        them, whose items are (item, i, j).

        Args:
            known: the raters that are expected; rows of others are bad. All are taken by default.
            on_bad_row: whether a row that cannot be used ends the work or is counted.

        Raises:
            DataError: a row lacks a column, says something of the wrong kind, or is a rater's second about an item;
                gold answers of an item differ; or no row is left.
        """
        bad = BadRows(on_bad_row)
        said: dict[tuple[Hashable, Hashable], Hashable] = {}
        gold: dict[Hashable, Hashable] = {}
        for number, row in enumerate(rows):
            try:
                item, rater = _name(row, "item"), _name(row, "rater")
                if known is not None and rater not in known:
                    raise DataError("the rater is not known", why=f"it is {rater!r}", fix="add it to the known raters")
                kinds = [kind for kind in ("label", "pair", "rank") if row.get(kind) is not None]
                if len(kinds) != 1:
                    raise DataError("the row has not one of 'label', 'pair' and 'rank'", why=f"it has {len(kinds)}")
                answers = _answers(item, kinds[0], row[kinds[0]])
                right = {} if row.get("gold") is None else _answers(item, kinds[0], row["gold"])
                if any((place, rater) in said for place in answers):
                    raise DataError("the rater rated the item before", why=f"rater {rater!r}, item {item!r}")
                if any(gold.get(place, answer) != answer for place, answer in right.items()):
                    raise DataError("the item has another gold answer before", why=f"item {item!r}")
            except DataError as error:
                bad.add(f"row {number}", error)
                continue
            gold.update(right)
            said.update({(place, rater): answer for place, answer in answers.items()})
        if not said:
            raise DataError("there are no ratings", fix="give rows with item, rater and label, pair or rank")
        items = {place: index for index, place in enumerate(dict.fromkeys(place for place, _ in said))}
        raters = {rater: index for index, rater in enumerate(dict.fromkeys(rater for _, rater in said))}
        labels = {label: index for index, label in enumerate(_sorted(set(said.values()) | set(gold.values())))}
        truth = np.full(len(items), MISSING, dtype=np.int64)
        for place, answer in gold.items():
            if place in items:
                truth[items[place]] = labels[answer]
        columns = (
            np.array([items[place] for place, _ in said]),
            np.array([raters[rater] for _, rater in said]),
            np.array([labels[answer] for answer in said.values()]),
        )
        return cls(tuple(items), tuple(raters), tuple(labels), *columns, truth, bad.counts())

    def counts(self) -> NDArray[np.int64]:
        """How many raters gave an item a label: int64 (items, labels), as Fleiss' kappa takes it."""
        shape = len(self.items), len(self.labels)
        return np.bincount(self.item * shape[1] + self.label, minlength=shape[0] * shape[1]).reshape(shape)

    def table(self) -> NDArray[np.object_]:
        """Labels as objects (items, raters), None where there is no rating, as Krippendorff's alpha takes them."""
        table = np.full((len(self.items), len(self.raters)), None, dtype=object)
        names = np.empty(len(self.labels), dtype=object)
        names[:] = self.labels
        table[self.item, self.rater] = names[self.label]
        return table


def _name(row: Mapping[str, Any], column: str) -> Hashable:
    value = need(row, column)
    if not isinstance(value, Hashable) or value != value:
        raise DataError(f"{column!r} is no name", why=f"it is {value!r:.80}")
    return value


def _answers(item: Hashable, kind: str, value: Any) -> dict[Hashable, Hashable]:
    if kind == "label":
        if not isinstance(value, Hashable) or value != value:
            raise DataError("a label is no category", why=f"it is {value!r:.80}")
        return {item: value}
    if kind == "pair":
        if not isinstance(value, int | float) or value not in (0, 0.5, 1):
            raise DataError("a pair's rating is not 0, .5 or 1", why=f"it is {value!r:.80}")
        return {item: float(value)}
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError("ranks are no list", why=f"they are {value!r:.80}")
    if any(isinstance(rank, bool) or not isinstance(rank, int | float) for rank in value):
        raise DataError("a rank is not a number", why=f"ranks are {value!r:.80}")
    pairs = pairs_from_rankings([[-rank for rank in value]])
    found: dict[Hashable, Hashable] = {}
    for better, worse, tie in zip(pairs.better.tolist(), pairs.worse.tolist(), pairs.tie.tolist(), strict=True):
        low, high = min(better, worse), max(better, worse)
        found[item, low, high] = 0.5 if tie else float(better == low)
    return found


def _sorted(values: set[Hashable]) -> list[Hashable]:
    try:
        return sorted(values)  # type: ignore[type-var]
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, repr(value)))


def with_hidden_gold(
    work: Sequence[T], gold: Sequence[T], *, share: float = 0.1, seed: int = 0
) -> list[tuple[T, bool]]:
    """A rater's queue with gold items hidden among the work, as quality control during the work (PRM800K's practice).

    Args:
        work: kept in its order.
        gold: drawn from without repeats until all were used, then anew.
        share: of the queue that is gold, rounded up. ``seed``: another one a rater gives other items and places.

    Returns:
        (item, whether it is gold).

    Raises:
        UsageError: ``share`` is not in [0, 1), or gold is wanted and there is none.
    """
    if not 0 <= share < 1:
        raise UsageError(f"share is {share}", fix="it must be 0 or more and below 1")
    hidden = math.ceil(len(work) * share / (1 - share))
    if hidden and not gold:
        raise UsageError("there are no gold items to hide", fix="give some, or share=0")
    rng = np.random.default_rng(seed)
    places = set(rng.permutation(len(work) + hidden)[:hidden].tolist())
    queue, works = list[tuple[T, bool]](), iter(work)
    order: list[int] = []
    for place in range(len(work) + hidden):
        if place not in places:
            queue.append((next(works), False))
            continue
        if not order:
            order = rng.permutation(len(gold)).tolist()
        queue.append((gold[order.pop()], True))
    return queue


@dataclass(frozen=True)
class RaterReport:
    """One rater.

    Args:
        rater: the name. ``count``: ratings.
        gold: agreement with gold, None without gold items.
        peers: agreement with other raters' ratings of the same items, None when there are none.
        kappa: Cohen's kappa with gold, None where it is undefined.
        label_shares: how often the rater said each label, by label.
    """

    rater: Hashable
    count: int
    gold: Share | None
    peers: Share | None
    kappa: float | None
    label_shares: dict[Hashable, float]


def report(ratings: Ratings, *, level: float = 0.95) -> list[RaterReport]:
    """A report by rater, in the order in which they first came."""
    counts = ratings.counts()
    right = ratings.gold[ratings.item]
    agrees = right == ratings.label
    same = counts[ratings.item, ratings.label] - 1
    others = counts.sum(axis=1)[ratings.item] - 1
    found = []
    for number, rater in enumerate(ratings.raters):
        own = ratings.rater == number
        known = own & (right != MISSING)
        said, meant = ratings.label[known].tolist(), right[known].tolist()
        try:
            kappa = cohen_kappa(said, meant) if said else None
        except DataError:
            kappa = None
        shares = np.bincount(ratings.label[own], minlength=len(ratings.labels)) / own.sum()
        met = int(others[own].sum())
        found.append(
            RaterReport(
                rater,
                int(own.sum()),
                wilson(float(agrees[known].sum()), int(known.sum()), level) if said else None,
                wilson(float(same[own].sum()), met, level) if met else None,
                kappa,
                dict(zip(ratings.labels, shares.tolist(), strict=True)),
            )
        )
    return found


Verdict = Literal["pass", "borderline", "fail", "no gold"]


def screen(ratings: Ratings, *, cut: float = SCREENING_CUT, level: float = 0.95) -> dict[Hashable, Verdict]:
    """Labeler screening by agreement with gold items.

    The cut is soft: who lies below it, with a Wilson interval that still holds it, is ``borderline`` and may be asked
    again.

    Raises:
        DataError: no item has a gold answer.
        UsageError: ``cut`` is no share.
    """
    if not 0 <= cut <= 1:
        raise UsageError(f"cut is {cut}", fix="it must lie between 0 and 1")
    _need_gold(ratings)
    verdicts: dict[Hashable, Verdict] = {}
    for rater in report(ratings, level=level):
        if rater.gold is None:
            verdicts[rater.rater] = "no gold"
        elif rater.gold.share >= cut:
            verdicts[rater.rater] = "pass"
        else:
            verdicts[rater.rater] = "borderline" if rater.gold.high >= cut else "fail"
    return verdicts


def super_raters(
    ratings: Ratings, *, tau: float = 0.75, n_min: int = 20, k: int | None = None, level: float = 0.95
) -> list[Hashable]:
    """Raters whose agreement with gold has a Wilson lower bound of ``tau`` or more on ``n_min`` items or more.

    Returns:
        The best first, ``k`` at most.

    Raises:
        DataError: no item has a gold answer.
        UsageError: ``tau`` is no share, or ``n_min`` is below 1.
    """
    if not 0 <= tau <= 1 or n_min < 1:
        raise UsageError(f"tau is {tau}, n_min is {n_min}", fix="tau lies between 0 and 1, n_min is 1 or more")
    _need_gold(ratings)
    good = [(r.gold.low, r.rater) for r in report(ratings, level=level) if r.gold is not None and r.gold.count >= n_min]
    return [rater for low, rater in sorted(good, key=lambda pair: -pair[0]) if low >= tau][:k]


def _need_gold(ratings: Ratings) -> None:
    if (ratings.gold == MISSING).all():
        raise DataError("no item has a gold answer", fix="give a column 'gold' on items whose answer is known")
