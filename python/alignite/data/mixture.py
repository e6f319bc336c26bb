"""Drawing from several sources: mixtures by rates, stages of mixtures, samples of streams."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np

from alignite.errors import UsageError
from alignite.native import mixture as native

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class SourceShare:
    """What a mixture makes of a source: its chance at each draw, and what so many draws take of it.

    ``epochs`` is how often its rows are seen: documents drawn divided by rows.
    """

    name: str
    rows: int
    share: float
    documents: int
    epochs: float


@dataclass(frozen=True)
class MixedRows:
    """What :meth:`Mixture.write_rows` wrote.

    Args:
        rows: how many; more than draws where a row holds several examples.
        format: what rows were converted to; None when they stay as they are.
        formats: by source, the formats of its files.
        lost: by the name of a field that ``format`` has no place for, the drawn rows that had it.
    """

    rows: int
    format: str | None
    formats: dict[str, str]
    lost: dict[str, int]


class Mixture:
    """A stream of draws from several sources. Draw t is a function of (seed, epoch, t) and of nothing else.

    The rate of a part is ``min(size * scale, cap) ** (1 / temperature)``, as in seqio's ``mixing_rate_num_examples``;
    with ``weights`` or ``rate="equal"`` the weight or 1 stands for the size. A source's share is the sum, over the
    places where its name stands, of the part's rate times the share within the part. Each pass over a source is another
    permutation of its rows.

    Args:
        sources: by name, the rows of a source (a count, or anything with a length) or a mixture. A mixture within gives
            its rates only; its seed, ``exhaust`` and ``unit`` must be the defaults.
        rate: ``examples`` by size, ``equal``; ``weights`` sets it.
        cap: the most that a size counts for.
        temperature: above 1 draws shares together; large values make them equal.
        scale: what a size is multiplied by, before the cap.
        weights: a rate for every part; 0 leaves one out.
        exhaust: at a source's end ``repeat`` begins it anew, ``stop`` ends the draws, ``drop`` goes on without it.
        unit: ``tokens`` makes sizes and shares count tokens: a source of long rows is drawn less often.
        tokens: by name, the tokens of each source, for ``unit="tokens"``.
        seed, epoch: which draws these are.

    Raises:
        UsageError: an argument cannot be taken; ``where`` is the path of names.
    """

    def __init__(
        self,
        sources: Mapping[str, int | Sized | Mixture],
        *,
        rate: Literal["examples", "equal"] = "examples",
        cap: float | None = None,
        temperature: float | None = None,
        scale: float | None = None,
        weights: Mapping[str, float] | None = None,
        exhaust: Literal["repeat", "stop", "drop"] = "repeat",
        unit: Literal["examples", "tokens"] = "examples",
        tokens: Mapping[str, int] | None = None,
        seed: int = 0,
        epoch: int = 0,
    ) -> None:
        for given in (weights, tokens):
            unknown = [name for name in given or () if name not in sources]
            if unknown:
                raise UsageError(f"there is no source {unknown[0]!r}", fix=f"sources are {', '.join(sources)}")
        for name, value in (("seed", seed), ("epoch", epoch)):
            if not 0 <= value < 2**64:
                raise UsageError(f"{name} is {value}", fix="it must be 0 to 2^64 - 1")
        if weights is not None and rate != "examples":
            raise UsageError(f"rate is {rate!r} and weights are given", fix="leave one of them out")
        parts: list[dict[str, Any]] = []
        for name, source in sources.items():
            part: dict[str, Any] = {"name": name}
            if isinstance(source, Mixture):
                part["mixture"] = source.spec
            else:
                part |= {"rows": _rows(name, source), "tokens": (tokens or {}).get(name)}
            if weights is not None:
                part["weight"] = weights.get(name)
            parts.append(part)
        self.spec: dict[str, Any] = {
            "sources": parts,
            "rate": rate if weights is None else "weights",
            "cap": cap,
            "temperature": temperature,
            "scale": scale,
            "exhaust": exhaust,
            "unit": unit,
        }
        self.seed, self.epoch = seed, epoch
        self._native = native.Mixture(json.dumps(self.spec), seed, epoch)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], seed: int = 0, epoch: int = 0) -> Self:
        """A mixture from what :attr:`spec` of another holds."""
        made = cls.__new__(cls)
        made.spec, made.seed, made.epoch = dict(spec), seed, epoch
        made._native = native.Mixture(json.dumps(made.spec), seed, epoch)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_spec, (self.spec, self.seed, self.epoch), self.state_dict()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.load_state_dict(state)

    @property
    def names(self) -> list[str]:
        """The sources, as :meth:`draw` numbers them."""
        return [name for name, _, _ in self._native.sources()]

    def rates(self) -> dict[str, float]:
        """The chance of each source at a draw; they sum to 1."""
        return {name: share for name, _, share in self._native.sources()}

    def describe(self, total: int | None = None) -> list[SourceShare]:
        """What the first ``total`` draws take of each source; default as many as there are rows."""
        sources = self._native.sources()
        drawn = native.Mixture(json.dumps(self.spec), self.seed, self.epoch)
        drawn.skip(sum(rows for _, rows, _ in sources) if total is None else total)
        counts = drawn.position()[1]
        return [
            SourceShare(name, rows, share, count, count / rows)
            for (name, rows, share), count in zip(sources, counts, strict=True)
        ]

    def draw(self, start: int, stop: int, step: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The draws ``start``, ``start + step``, ... below ``stop``, as (sources, rows), both int64; fewer at the end.

        Rank r of w takes ``draw(start + r, stop, w)``. Going on from where the last call ended costs only what is
        drawn; other places are reached by counting from the beginning or forward, some nanoseconds a draw.

        Raises:
            UsageError: the positions are no range.
        """
        if not 0 <= start <= stop or step < 1:
            raise UsageError(f"there are no draws {start} to {stop} by {step}")
        drawn, counts = self._native.position()
        if start < drawn:
            self._native.restore(0, [0] * len(counts))
            drawn = 0
        if self._native.skip(start - drawn) < start - drawn:
            return self._native.draw(0, 1)
        return self._native.draw(stop - start, step)

    def state_dict(self) -> dict[str, Any]:
        """The draws that were made, and of each source."""
        drawn, counts = self._native.position()
        return {"drawn": drawn, "counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: it is not one of such a mixture.
        """
        self._native.restore(state["drawn"], state["counts"])

    def write_rows(self, files: Mapping[str, Sequence[str | PathLike[str]]], total: int, output: str) -> MixedRows:
        """Write the rows of the first ``total`` draws to a file, source by source, each as often as it is drawn.

        A file is prepared as one format. So rows stay as they are where all sources are of one, and otherwise become
        what their kind of record has for its own: conversations ``messages``, comparisons ``preference``, and so on.

        Raises:
            DataError: a file of a source cannot be read, or holds other rows than the mixture was made with; a row
                cannot be converted; no format fits a source.
            UsageError: the sources hold records of different kinds.
            ResourceError: the output cannot be written.
        """
        drawn = native.Mixture(json.dumps(self.spec), self.seed, self.epoch)
        rows, to, formats, lost = drawn.write_rows([list(files[name]) for name in self.names], total, output)
        return MixedRows(rows, to, dict(zip(self.names, formats, strict=True)), dict(lost))


@dataclass(frozen=True)
class Stage:
    """So many draws of a mixture, some of which may go to an earlier stage's, against forgetting.

    Args:
        mixture: what is drawn from.
        draws: how many, the replayed ones among them.
        replay: the share of the earlier mixture, which is drawn on from where it stopped. A quota, not chance.
        replay_of: the number of the earlier stage, from 0; default the one before.
        ramp: over so many draws the earlier mixture's share falls in a straight line from 1 to ``replay``.
    """

    mixture: Mixture
    draws: int
    replay: float = 0.0
    replay_of: int | None = None
    ramp: int = 0


class Curriculum:
    """The draws of stages in turn; the first stage alone is its plain mixture with this seed.

    Raises:
        UsageError: a stage's numbers are out of range; ``where`` names the stage.
    """

    def __init__(self, stages: Sequence[Stage], seed: int = 0) -> None:
        self._stages, self.seed = tuple(stages), seed
        described = [
            {
                "mixture": stage.mixture.spec,
                "draws": stage.draws,
                "replay": stage.replay,
                "replay_of": stage.replay_of,
                "ramp": stage.ramp,
            }
            for stage in stages
        ]
        self._native = native.Curriculum(json.dumps(described), seed)
        self.names = self._native.names()

    def __len__(self) -> int:
        return sum(stage.draws for stage in self._stages)

    def describe(self, rows: Mapping[str, int]) -> list[SourceShare]:
        """What all stages together take of each source; ``rows`` are the sources' by name."""
        counts = [0] * len(self.names)
        fresh = Curriculum(self._stages, self.seed)
        while len(sources := fresh.draw(1 << 20)[1]):
            for source, count in enumerate(np.bincount(sources, minlength=len(counts)).tolist()):
                counts[source] += count
        total = sum(counts)
        return [
            SourceShare(name, rows[name], count / total, count, count / rows[name])
            for name, count in zip(self.names, counts, strict=True)
        ]

    def draw(self, draws: int, step: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of the next ``draws`` every ``step``-th from the first, as (stages, sources, rows), all int64.

        Sources are numbered by :attr:`names`. Fewer come after the last stage.
        """
        return self._native.draw(draws, step)

    def state_dict(self) -> dict[str, Any]:
        """The draws that were made, and where each stage's mixture stands."""
        state: dict[str, Any] = json.loads(self._native.state())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UsageError: it is not one of such a curriculum.
        """
        self._native.restore(json.dumps(state))


def reservoir_sample(rows: Iterable[T], n: int, seed: int = 0) -> list[T]:
    """A uniform sample of ``n`` rows of a stream, by Algorithm L (Li 1994), holding no more than ``n`` of them.

    The sample stands in a random order, so that its first m rows are a uniform sample of m: sets of several sizes, each
    within the next. A stream of fewer rows is taken whole.

    Raises:
        UsageError: ``n`` is negative.
    """
    if n < 0:
        raise UsageError(f"n is {n}", fix="it must be 0 or more")
    held: list[T] = []
    stream, done = iter(rows), 0
    for item, place in native.SampleSteps(n, seed):
        try:
            row = next(itertools.islice(stream, min(item - done, 2**62), None))
        except StopIteration:
            break
        done = item + 1
        if place == len(held):
            held.append(row)
        else:
            held[place] = row
    return [held[place] for place in native.sample_order(len(held), seed)]


def count_rows(files: Sequence[str | PathLike[str]]) -> list[int]:
    """The rows of each file.

    Raises:
        DataError: a file cannot be opened, or is damaged.
    """
    return native.count_rows(list(files))


def _rows(name: str, source: int | Sized) -> int:
    rows = len(source) if isinstance(source, Sized) else source
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise UsageError(f"the rows are {rows!r}", where=name, fix="give a count, or something that has a length")
    return rows
