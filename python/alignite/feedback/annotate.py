"""Feedback by models: pairs judged in both orders and averaged, with a report on position bias; win rates."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignite.data.survey import Count
from alignite.errors import AligniteError, DataError, Preempted, UsageError
from alignite.feedback.agreement import Share, wilson
from alignite.feedback.choices import Generate, as_text, choice_probabilities
from alignite.feedback.rows import BadRows, OnBadRow, need, preference_row

Judge = Callable[[Any, Any, Any], "float | None"]
"""(prompt, first, second) to the chance that the first reply is better; None where the answer could not be read."""

PREAMBLE = "Two responses to the same prompt follow. Decide which of them is better."


class PromptedJudge:
    """A judge made of any model that writes text: it is asked for "1" or "2" (RLAIF, arXiv 2309.00267, section 3.1).

    Args:
        answer: a prompt to the answer. With log-probabilities, p is the softmax over the two choices; else 0 or 1.
        think: where given, writes a rationale first, which ``answer`` then sees. Decode it greedily.
        preamble: the task. ``exemplars``: solved examples, behind it.
        principles: what "better" means. Each pair is judged by ``principles_per_pair`` of them, drawn by ``seed`` and
            the pair's texts, the same in both orders, and the chances are averaged (Constitutional AI, arXiv
            2212.08073, section 4.1).
        clamp: bounds of p, against the overconfidence of rationales: Constitutional AI has (.4, .6).
        choices, ending: how the first and the second reply are called, and what stands before the answer.

    Raises:
        UsageError: an option is out of range.
    """

    def __init__(
        self,
        answer: Generate,
        *,
        think: Generate | None = None,
        preamble: str = PREAMBLE,
        exemplars: str = "",
        principles: Sequence[str] = (),
        principles_per_pair: int = 1,
        clamp: tuple[float, float] | None = None,
        choices: tuple[str, str] = ("1", "2"),
        ending: str = "Preferred Response=",
        seed: int = 0,
    ) -> None:
        if clamp is not None and not 0 <= clamp[0] <= 0.5 <= clamp[1] <= 1:
            raise UsageError(f"clamp is {clamp}", fix="its bounds lie in [0, .5] and [.5, 1]")
        if principles and not 1 <= principles_per_pair <= len(principles):
            raise UsageError(
                f"principles_per_pair is {principles_per_pair}", fix=f"it must be 1 to {len(principles)}, their number"
            )
        if choices[0] == choices[1] or not all(choices):
            raise UsageError(f"choices are {choices}", fix="give two that differ")
        self._answer, self._think = answer, think
        self._preamble, self._exemplars, self._ending = preamble, exemplars, ending
        self._principles, self._drawn = tuple(principles), principles_per_pair
        self._clamp, self._choices, self._seed = clamp, choices, seed

    def __call__(self, prompt: Any, first: Any, second: Any) -> float | None:
        found = [self._judged(principle, prompt, first, second) for principle in self._draw(prompt, first, second)]
        read = [p for p in found if p is not None]
        return math.fsum(read) / len(read) if read else None

    def _draw(self, prompt: Any, first: Any, second: Any) -> list[str]:
        if not self._principles:
            return [""]
        texts = [str(self._seed), as_text(prompt), *sorted((as_text(first), as_text(second)))]
        digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest()
        return random.Random(int.from_bytes(digest)).sample(self._principles, self._drawn)

    def _judged(self, principle: str, prompt: Any, first: Any, second: Any) -> float | None:
        parts = [self._preamble, principle, self._exemplars, f"Prompt: {as_text(prompt)}"]
        parts += [
            f"Response {name}: {as_text(reply)}" for name, reply in zip(self._choices, (first, second), strict=True)
        ]
        asked = "\n\n".join(part for part in parts if part)
        if self._think is not None:
            asked += "\n\nRationale: "
            asked += str(self._think(asked)).strip()
        chances = choice_probabilities(self._answer(f"{asked}\n\n{self._ending}"), self._choices)
        if chances is None:
            return None
        p = float(chances[0])
        return p if self._clamp is None else min(max(p, self._clamp[0]), self._clamp[1])


@dataclass(frozen=True)
class AnnotationReport:
    """What became of the pairs.

    Args:
        pairs: judged, the unparsable ones among them; not those that the judge fails on, which are ``bad``.
        unparsable: pairs with an answer that could not be read, in either order; left out.
        inconsistent: pairs whose winner changed with the order.
        position_bias: their share of the pairs that were read in both orders; NaN where there are none.
        first_share: the mean chance given to the reply that stood first; .5 is fair. NaN likewise.
        ties: pairs that ended at p = .5.
        bad: by reason, the rows that could not be judged, those that the judge fails on among them.
    """

    pairs: int
    unparsable: int
    inconsistent: int
    position_bias: float
    first_share: float
    ties: int
    bad: dict[str, Count]


def swapped_mean(p12: float, p21: float) -> float:
    """The chance that the first reply is better, from both orders: .5 (p12 + 1 - p21).

    Args:
        p12: the chance that the first one, shown first, is better. ``p21``: that the second one, shown first, is.

    Exactly 1 minus what the exchanged pair gives.
    """
    half = (p12 - p21) / 2
    return 0.5 + half if half >= 0 else 1.0 - (0.5 - half)


def annotate(
    rows: Iterable[Mapping[str, Any]],
    judge: Judge,
    *,
    swap: bool = True,
    inconsistent: Literal["keep", "drop", "soften"] = "keep",
    names: tuple[str, str] | None = None,
    workers: int = 1,
    on_bad_row: OnBadRow = "error",
) -> tuple[list[dict[str, Any]], AnnotationReport]:
    """Pairs as preference rows whose ``p`` a judge gives.

    Args:
        rows: ``prompt`` and two replies, as texts or messages.
        judge: any callable, such as a :class:`PromptedJudge`.
        swap: whether each pair is judged in both orders and averaged; else position bias stays in and cannot be told.
        inconsistent: what becomes of pairs whose winner changes with the order: ``keep`` takes their mean, ``drop``
            leaves them out, ``soften`` says p = .5.
        names: the columns of the replies; default: ``first`` and ``second``, else ``chosen`` and ``rejected``, which
            are judged anew, else two ``completions``.
        workers: pairs judged at the same time, in threads; rows keep their order.
        on_bad_row: whether a row that cannot be judged, or that the judge fails on, ends the work, and all labels with
            it, or is counted, and the others are kept.

    Returns:
        Rows ``prompt``, ``chosen``, ``rejected``, ``p`` with p >= .5; and the report.

    Raises:
        DataError: a row lacks a column or has equal replies, or the judge raises or gives something that is no
            probability; the row is named. AligniteError: the judge's own, likewise.
        UsageError: an option is out of range.
    """
    if inconsistent not in ("keep", "drop", "soften") or workers < 1:
        raise UsageError(
            f"inconsistent is {inconsistent!r} and workers is {workers}",
            fix="inconsistent is keep, drop or soften; workers is 1 or more",
        )
    bad = BadRows(on_bad_row)
    pairs = []
    for number, row in enumerate(rows):
        try:
            prompt, (first, second) = row.get("prompt"), _replies(row, names)
            preference_row(prompt, first, second, 0.5)
            as_text(prompt or "")
        except (DataError, KeyError, TypeError) as error:
            what = error if isinstance(error, DataError) else DataError("the prompt is no text and no messages")
            bad.add(f"row {number}", what)
        else:
            pairs.append((f"row {number}", prompt or "", first, second))
    judged = _judged(pairs, judge, swap, workers, keep_errors=on_bad_row == "skip")
    made = []
    flips = unparsable = ties = failed = 0
    firsts: list[float] = []
    for (where, prompt, first, second), orders in zip(pairs, judged, strict=True):
        if isinstance(orders, AligniteError):
            bad.add(where, orders)
            failed += 1
            continue
        if orders is None:
            unparsable += 1
            continue
        p12, p21 = orders
        p = swapped_mean(p12, p21)
        if swap:
            firsts.append((p12 + p21) / 2)
            if (p12 - 0.5) * (p21 - 0.5) > 0:
                flips += 1
                if inconsistent == "drop":
                    continue
                p = 0.5 if inconsistent == "soften" else p
        ties += p == 0.5
        made.append(preference_row(prompt, first, second, p))
    report = AnnotationReport(
        len(pairs) - failed,
        unparsable,
        flips,
        flips / len(firsts) if firsts else math.nan,
        math.fsum(firsts) / len(firsts) if firsts else math.nan,
        ties,
        bad.counts(),
    )
    return made, report


def _replies(row: Mapping[str, Any], names: tuple[str, str] | None) -> tuple[Any, Any]:
    """The two replies of a row."""
    for one, other in [names] if names is not None else [("first", "second"), ("chosen", "rejected")]:
        if names is not None or one in row or other in row:
            return need(row, one), need(row, other)
    if "completions" not in row:
        raise DataError(
            "the row has neither first and second, nor chosen and rejected, nor completions",
            why=f"it has {', '.join(map(str, row)) or 'nothing'}",
            fix="give two replies, or name their columns by names",
        )
    given = row["completions"]
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise DataError("completions is no list of two replies", fix="make pairs of a ranking by rows_from_rankings")
    return given[0], given[1]


def _judged(
    pairs: Sequence[tuple[str, Any, Any, Any]], judge: Judge, swap: bool, workers: int, *, keep_errors: bool = False
) -> list[tuple[float, float] | AligniteError | None]:
    """Of each pair the chances of the reply shown first, in both orders; None where one could not be read.

    What the judge fails on is raised as an error that names the pair, or stands in the pair's place.
    """

    def both(pair: tuple[str, Any, Any, Any]) -> tuple[float, float] | AligniteError | None:
        where, prompt, first, second = pair
        try:
            one = _asked(judge, prompt, first, second)
            if one is None:
                return None
            other = _asked(judge, prompt, second, first) if swap else 1.0 - one
        except Preempted:
            raise
        except AligniteError as error:
            if keep_errors:
                return error
            error.where = where if error.where is None else f"{where}, {error.where}"
            raise
        return None if other is None else (one, other)

    if workers == 1:
        return [both(pair) for pair in pairs]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(both, pairs))


def _asked(judge: Judge, prompt: Any, first: Any, second: Any) -> float | None:
    try:
        p: Any = judge(prompt, first, second)
    except AligniteError:
        raise
    except Exception as error:
        raise DataError(
            f"the judge raises {type(error).__name__}",
            why=str(error) or None,
            fix="mend the judge; annotate's on_bad_row='skip' counts such rows and keeps the others",
        ) from error
    if p is None:
        return None
    try:
        chance = math.nan if isinstance(p, str | bytes) else float(p)
    except (TypeError, ValueError):
        chance = math.nan
    if not 0 <= chance <= 1:
        raise DataError(
            "the judge gives no chance between 0 and 1", why=f"it gives {p!r:.80}", fix="give a chance, or None"
        )
    return chance


@dataclass(frozen=True)
class WinRate:
    """How often a model's replies are better.

    Args:
        rate: (wins + ties / 2) / judged. ``se``: its standard error, sqrt(variance / judged).
        share: the same with Wilson's bounds.
        wins, ties, losses: counts; ``unparsable`` pairs count nowhere.
        position_bias: as :class:`AnnotationReport`.
    """

    rate: float
    se: float
    share: Share
    wins: int
    ties: int
    losses: int
    unparsable: int
    position_bias: float


def win_rate(
    prompts: Sequence[Any],
    generate: Callable[[Sequence[Any]], Sequence[Any]],
    reference: Callable[[Sequence[Any]], Sequence[Any]] | Sequence[Any],
    judge: Judge,
    *,
    workers: int = 1,
) -> WinRate:
    """Judge a model's replies against others, each pair in both orders. Replies that are the same are ties.

    Args:
        prompts: texts or messages.
        generate: prompts to replies, all at once.
        reference: the other model, or its replies.
        judge: as :func:`annotate` takes it.

    Raises:
        DataError: there is not one reply for each prompt, or no pair could be judged.
    """
    mine = list(generate(prompts))
    others = list(reference(prompts) if callable(reference) else reference)
    if not len(prompts) == len(mine) == len(others):
        raise DataError(f"there are {len(prompts)} prompts, {len(mine)} replies and {len(others)} others")
    pairs = [
        (f"prompt {number}", prompt, one, other)
        for number, (prompt, one, other) in enumerate(zip(prompts, mine, others, strict=True))
        if one != other
    ]
    judged = [orders for orders in _judged(pairs, judge, True, workers) if isinstance(orders, tuple)]
    points = [float(np.sign(swapped_mean(*orders) - 0.5) + 1) / 2 for orders in judged]
    points += [0.5] * (len(prompts) - len(pairs))
    if not points:
        raise DataError("no pair could be judged", fix="see what the judge answers")
    flips = sum((p12 - 0.5) * (p21 - 0.5) > 0 for p12, p21 in judged)
    return WinRate(
        float(np.mean(points)),
        float(np.std(points, ddof=1) / np.sqrt(len(points))) if len(points) > 1 else math.nan,
        wilson(math.fsum(points), len(points)),
        points.count(1.0),
        points.count(0.5),
        points.count(0.0),
        len(pairs) - len(judged),
        flips / len(judged) if judged else math.nan,
    )
