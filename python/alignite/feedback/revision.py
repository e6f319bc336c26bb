"""Critique and revision by principles: the supervised stage of Constitutional AI (arXiv 2212.08073, section 3.1)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alignite.data.survey import Count
from alignite.errors import DataError, UsageError
from alignite.feedback.choices import Generate, as_text
from alignite.feedback.rows import BadRows, OnBadRow, need
from alignite.files import write_file

# What a model goes on with when it does not stop by itself: the next part of the dialogue.
_NEXT_PART = re.compile(r"\n\n(?:Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")


@dataclass(frozen=True)
class Principle:
    """What to criticise in a reply, and how to revise it then: two requests in plain words."""

    id: str
    critique: str
    revision: str


@dataclass(frozen=True)
class Constitution:
    """Principles, with a name.

    On disk: ``{"name": ..., "principles": [{"id": ..., "critique": ..., "revision": ...}, ...]}``.
    """

    name: str
    principles: tuple[Principle, ...]

    @classmethod
    def load(cls, path: str | Path) -> Constitution:
        """From a file of ours, or of pairs by name as Constitutional AI's authors publish them.

        The latter is ``{name: {"prompt": "\\n\\nCritiqueRequest: ...\\n\\nCritique:", "edit_request":
        "\\n\\nRevisionRequest: ...\\n\\nRevision:"}, ...}``, or with ``critique`` and ``revision`` for the two keys.

        Raises:
            DataError: the file cannot be read, or holds no principles.
        """
        path = Path(path)
        try:
            held = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError("the principles cannot be read", where=str(path), why=str(error)) from error
        try:
            return cls.of(held, name=path.stem)
        except DataError as error:
            error.where = f"{path}: {error.where}" if error.where else str(path)
            raise

    @classmethod
    def of(cls, held: Any, *, name: str = "principles") -> Constitution:
        """The same from what a file holds.

        Raises:
            DataError: it holds no principles, an id repeats, or a request is missing or empty.
        """
        if isinstance(held, Mapping) and "principles" in held:
            name, listed = str(held.get("name", name)), held["principles"]
        elif isinstance(held, Mapping):
            listed = [{"id": key, **value} if isinstance(value, Mapping) else value for key, value in held.items()]
        else:
            listed = held
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            raise DataError("there are no principles", fix="give a list of {id, critique, revision}")
        found: dict[str, Principle] = {}
        for number, entry in enumerate(listed):
            principle = _principle(entry, number)
            if principle.id in found:
                raise DataError(f"two principles are called {principle.id!r}", where=f"principle {number}")
            found[principle.id] = principle
        return cls(name, tuple(found.values()))

    def save(self, path: str | Path) -> None:
        """Write a file of ours.

        Raises:
            ResourceError: it cannot be written.
        """
        write_file(Path(path), json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def _principle(entry: Any, number: int) -> Principle:
    if not isinstance(entry, Mapping):
        raise DataError("a principle is no object", where=f"principle {number}", why=f"it is {entry!r:.60}")
    said = []
    for kind, names in (("Critique", ("critique", "prompt")), ("Revision", ("revision", "edit_request"))):
        text = next((entry[name] for name in names if name in entry), None)
        bare = _bare(text, kind) if isinstance(text, str) else ""
        if not bare:
            raise DataError(f"a principle has no {kind.lower()} request", where=f"principle {number}")
        said.append(bare)
    return Principle(str(entry.get("id", number)), *said)


def _bare(text: str, kind: str) -> str:
    """A request without the dialogue's marks around it."""
    return text.strip().removeprefix(f"{kind}Request:").removesuffix(f"{kind}:").strip()


@dataclass(frozen=True)
class Revision:
    """One round: the reply it began with, what was criticised by which principle, and the new reply."""

    round: int
    principle: str
    before: str
    critique: str
    after: str


@dataclass(frozen=True)
class Revised:
    """A prompt, the first reply, and its revisions in order, each of which begins where the one before ended."""

    prompt: Any
    response: str
    revisions: tuple[Revision, ...]

    def as_row(self) -> dict[str, Any]:
        """Everything as a row for JSONL: prompt, response, and revisions with their principles and critiques."""
        return asdict(self)


@dataclass(frozen=True)
class RevisionReport:
    """``prompts`` revised, ``revisions`` made, ``empty`` critiques or revisions that ended a chain, ``bad`` rows."""

    prompts: int
    revisions: int
    empty: int
    bad: dict[str, Count]


def revise(
    constitution: Constitution,
    generate: Generate,
    rows: Iterable[Mapping[str, Any]],
    *,
    rounds: int = 4,
    exemplars: str = "",
    seed: int = 0,
    workers: int = 1,
    on_bad_row: OnBadRow = "error",
) -> tuple[list[Revised], RevisionReport]:
    """Let a model criticise and revise replies, a principle a round.

    Args:
        generate: a prompt to what the model writes next; what it writes of a next part of the dialogue is cut.
        rows: ``prompt``, a text or messages, and ``completion``, which the model writes first where it is missing.
        rounds: of each row. Principles are drawn by ``seed`` and the row's number, without repeats while there are any.
        exemplars: worked critiques and revisions, put in front.
        workers: rows at the same time, in threads; they keep their order.
        on_bad_row: whether a row without a prompt ends the work or is counted.

    Raises:
        DataError: a row has no prompt.
        UsageError: ``rounds`` or ``workers`` is below 1.
    """
    if rounds < 1 or workers < 1:
        raise UsageError(f"rounds is {rounds} and workers is {workers}", fix="both must be 1 or more")
    bad = BadRows(on_bad_row)
    taken = []
    for number, row in enumerate(rows):
        try:
            asked = as_text(need(row, "prompt"))
            if not asked.strip():
                raise DataError("the prompt is empty")
        except (DataError, KeyError, TypeError) as error:
            what = error if isinstance(error, DataError) else DataError("the prompt is no text and no messages")
            bad.add(f"row {number}", what)
        else:
            taken.append((row["prompt"], row.get("completion"), _drawn(constitution, rounds, seed, number)))

    def one(item: tuple[Any, str | None, list[Principle]]) -> Revised:
        prompt, reply, principles = item
        head = f"{exemplars}\n\nHuman: {as_text(prompt)}\n\nAssistant:"
        return _revised(generate, head, prompt, reply, principles)

    if workers == 1:
        made = [one(item) for item in taken]
    else:
        with ThreadPoolExecutor(max_workers=workers) as pool:
            made = list(pool.map(one, taken))
    count = sum(len(chain.revisions) for chain in made)
    empty = sum(len(chain.revisions) < rounds for chain in made)
    return made, RevisionReport(len(made), count, empty, bad.counts())


def _drawn(constitution: Constitution, rounds: int, seed: int, number: int) -> list[Principle]:
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest))
    drawn: list[Principle] = []
    while len(drawn) < rounds:
        drawn += rng.sample(constitution.principles, len(constitution.principles))
    return drawn[:rounds]


def _revised(generate: Generate, head: str, prompt: Any, reply: str | None, principles: Sequence[Principle]) -> Revised:
    def written(asked: str) -> str:
        return _NEXT_PART.split(f"{generate(asked)!s}", maxsplit=1)[0].strip()

    first = reply if reply is not None else written(head.lstrip())
    chain: list[Revision] = []
    before = first
    for number, principle in enumerate(principles):
        asked = f"{head} {before}\n\nCritiqueRequest: {principle.critique}\n\nCritique:".lstrip()
        critique = written(asked)
        after = critique and written(f"{asked} {critique}\n\nRevisionRequest: {principle.revision}\n\nRevision:")
        if not after:
            break
        chain.append(Revision(number, principle.id, before, critique, after))
        before = after
    return Revised(prompt, first, tuple(chain))


def sft_rows(chains: Iterable[Revised], *, which: Literal["all", "last"] = "all") -> list[dict[str, Any]]:
    """Prompt/completion rows whose completions are revisions, of all rounds or the last; no critique, no principle.

    Prompts given as messages get their completion as messages. Chains without a revision give no row.
    """
    rows = []
    for chain in chains:
        for revision in chain.revisions if which == "all" else chain.revisions[-1:]:
            text = isinstance(chain.prompt, str)
            said = revision.after if text else [{"role": "assistant", "content": revision.after}]
            rows.append({"prompt": chain.prompt, "completion": said})
    return rows
