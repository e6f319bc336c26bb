"""Labelled rows as instructions: templates that people wrote, demonstrations before the question.

Templates: PromptSource (Bach et al. 2022, arXiv:2202.01279), FLAN (Longpre et al. 2023, arXiv:2301.13688),
Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705). Rendering is in rust/data/src/instruct.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from alignite.config import SFTConfig
from alignite.data.prepare import Data, files_or_rows
from alignite.data.template_files import read_template_file, understood
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, UsageError
from alignite.native import instruct as native

STYLES = ("zs_opt", "fs_opt", "zs_noopt", "fs_noopt")


class PromptTemplate:
    """One template in PromptSource's form: Jinja with ``|||`` between prompt and target."""

    def __init__(self, inner: native.PromptTemplate) -> None:
        self._inner = inner

    @classmethod
    def parse(cls, jinja: str, answer_choices: str | None = None, *, truncate: int | None = None) -> Self:
        """Compile a template.

        Args:
            jinja: the text.
            answer_choices: an expression that renders to the choices, with ``|||`` between them.
            truncate: cut every value to so many characters; 2048 is promptsource's default, here it is none.

        Raises:
            TemplateError: it is too large, too deep, or no template.
        """
        return cls(native.PromptTemplate(jinja, answer_choices, truncate))

    def apply(self, row: Mapping[str, Any], *, seed: int = 0, number: int = 0) -> list[str]:
        """The parts of a row, stripped: prompt and target where the template has one ``|||``.

        What the filters ``choice`` and ``random`` draw is a function of the seed and the row's number.

        Raises:
            TemplateError: the template fails on the row, or runs out of its budget of steps or output.
        """
        return self._inner.parts(json.dumps(row, ensure_ascii=False).encode(), seed, number)


class TemplateSet:
    """The templates of one task.

    Attributes:
        task: the task's name.
        rows: the instances that a Super-NaturalInstructions file brings along, or None.
    """

    def __init__(self, given: Mapping[str, Any], rows: list[Mapping[str, Any]] | None, truncate: int | None) -> None:
        self._inner = native.TemplateSet(json.dumps(given), truncate)
        self.task: str = self._inner.task
        self.rows = rows

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        task: str | None = None,
        truncate: int | None = None,
        description: bool = True,
        negatives: int = 0,
        explanations: bool = False,
    ) -> Self:
        """Read a template file, .yaml or .json.

        Three kinds are known: PromptSource's (``templates`` by id, with ``!Template`` tags or without), FLAN's
        (``task`` and ``patterns``, a list of [input, target]), and a Super-NaturalInstructions task file, for which
        the last three arguments say what its prompt holds: two runs that differ in one of them differ in that part
        only, with the same rows, answers and order.

        Raises:
            TemplateError: the file cannot be read, or a template does not compile.
        """
        path = Path(path)
        given, rows = understood(read_template_file(path), path, task)
        if given["kind"] == "natural":
            given["file"] |= {"description": description, "negatives": negatives, "explanations": explanations}
        return cls(given, rows, truncate)

    @classmethod
    def flan(cls, task: str, patterns: Iterable[tuple[str, str]]) -> Self:
        """FLAN's form: pairs of an input and a target pattern, with ``{column}`` and ``{options_}``."""
        return cls({"kind": "flan", "task": task, "patterns": [list(pair) for pair in patterns]}, None, None)

    @property
    def templates(self) -> list[tuple[str, str]]:
        """(id, name) of each template."""
        return self._inner.templates()

    @property
    def inner(self) -> native.TemplateSet:
        """What the Rust core holds."""
        return self._inner


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Demonstrations before the question, as FLAN writes them.

    Attributes:
        k: the fewest and the most of them, drawn evenly.
        max_tokens: what the prompt may have; demonstrations go, last first, until it holds, and an instance that is
            left without any is dropped and counted.
        same_template: whether they are in the question's template, or each in one of its own.
        pool: rows that they are drawn from; where there are more, a seeded sample of this size.
        all_targets: whether their answers are learned too: instances are ``messages`` rows then.
        tokenizer: what counts tokens: a tokenizer of a model folder, or a function from a text to a number.
    """

    k: tuple[int, int] = (1, 5)
    max_tokens: int = 1920
    same_template: bool = True
    pool: int = 100_000
    all_targets: bool = False
    tokenizer: ChatTokenizer | Callable[[str], int]


class Instances(Iterator[dict[str, Any]]):
    """Instances as they are made, in the order of the rows: an iterator of dicts."""

    def __init__(self, chunks: native.Instances) -> None:
        self._chunks = chunks
        self._ready: list[str] = []

    def lines(self) -> Iterator[str]:
        """The instances that are left, as JSON."""
        yield from reversed(self._ready)
        self._ready = []
        for chunk in self._chunks:
            yield from chunk

    def __next__(self) -> dict[str, Any]:
        while not self._ready:
            self._ready = next(self._chunks)[::-1]
        row: dict[str, Any] = json.loads(self._ready.pop())
        return row

    @property
    def report(self) -> dict[str, Any] | None:
        """Rows read, instances by template and style, what was dropped by reason; None before the last instance."""
        report = self._chunks.report
        return None if report is None else json.loads(report)


class TaskSource:
    """A task's rows and templates, which make instances."""

    def __init__(
        self,
        records: Data | None,
        templates: TemplateSet,
        *,
        styles: Mapping[str, float] | None = None,
        few_shot: FewShot | None = None,
        letters: bool = False,
        templates_per_row: int = 1,
        on_bad_row: str = "error",
        num_threads: int = 0,
    ) -> None:
        """Put rows and templates together.

        Args:
            records: a path, a glob, a data set of the hub, a list of them, or rows as mappings; None takes the
                instances of a Super-NaturalInstructions file.
            templates: the task's.
            styles: weights of zs_opt, fs_opt, zs_noopt and fs_noopt (zero-shot or few-shot, options shown or not);
                equal by default, the few-shot ones only with ``few_shot``. A style whose options no template can
                show, or leave out, becomes the other one.
            few_shot: demonstrations of the few-shot styles.
            letters: options as ``(A) a`` instead of ``- a`` (FLAN patterns only).
            templates_per_row: templates that each row is put into, drawn; 0 means all of them.
            on_bad_row: error, or skip, which counts what cannot be used.
            num_threads: CPU threads; 0 means all cores.

        Raises:
            UsageError: an unknown style, or weights that are none.
            DataError: a file is not there.
        """
        if records is None and templates.rows is None:
            raise DataError("there are no rows", fix="give records; only a task file has rows of its own")
        weights = dict(styles) if styles is not None else {s: 1.0 for s in STYLES if few_shot or s.startswith("zs")}
        for name in weights:
            if name not in STYLES:
                raise UsageError(f"unknown style {name!r}", fix=f"styles are {', '.join(STYLES)}")
        self._templates = templates
        self._files, self._rows = files_or_rows(templates.rows or [] if records is None else records)
        self._count: Any = None
        few = None
        if few_shot is not None:
            tokenizer = few_shot.tokenizer
            self._count = _counter(tokenizer) if isinstance(tokenizer, ChatTokenizer) else tokenizer
            few = {
                "k": list(few_shot.k),
                "max_tokens": few_shot.max_tokens,
                "same_template": few_shot.same_template,
                "pool": few_shot.pool,
                "all_targets": few_shot.all_targets,
            }
        self._options: dict[str, Any] = {
            "styles": [float(weights.get(name, 0.0)) for name in STYLES],
            "letters": letters,
            "templates_per_row": templates_per_row,
            "few_shot": few,
            "skip": on_bad_row == "skip",
            "num_threads": num_threads,
        }

    def instances(self, seed: int = 0, *, max_examples: int | None = None) -> Instances:
        """The instances: dicts with prompt and completion (or messages), task, template_id, style, shots, options, row.

        The same seed gives the same ones, in the same order, whatever the machine and its threads.

        Raises:
            UsageError, DataError, TemplateError: while they are taken; see :class:`TaskSource` and ``on_bad_row``.
        """
        options = json.dumps(self._options | {"max_examples": max_examples})
        return Instances(self._templates.inner.instances(self._files, self._rows, options, seed, self._count))


def _counter(tokenizer: ChatTokenizer) -> Any:
    return tokenizer.preparer(SFTConfig(apply_chat_template=tokenizer.chat_template is not None))
