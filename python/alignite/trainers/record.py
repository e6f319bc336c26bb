"""What a run leaves in its folder besides weights and metrics: data.json, samples.jsonl, report.html."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignite.evaluation.report.card import write_card
from alignite.evaluation.report.page import write_report
from alignite.evaluation.samples import Question, questions_from, questions_of, write_samples
from alignite.files import write_file
from alignite.training import distributed

if TYPE_CHECKING:
    from torch import nn

    from alignite.config import TrainingConfig
    from alignite.data.prepared import PreparedSet
    from alignite.data.tokenizer import ChatTokenizer

log = logging.getLogger("alignite")

DATA_FILE = "data.json"
REPORT_FILE = "report.html"


class Record:
    """Writes a run's by-products, on rank 0. None of them is worth a run: what fails is named in the log.

    Args:
        run_dir: the run's folder.
        train, held_out: the prepared sets; prompts for samples come from the held-out one when there is one.
        report: what the run tells of the training rows.
    """

    def __init__(
        self,
        run_dir: Path,
        args: TrainingConfig,
        tokenizer: ChatTokenizer,
        train: PreparedSet,
        held_out: PreparedSet | None,
        report: Mapping[str, Any],
    ) -> None:
        self._run_dir, self._args, self._tokenizer = run_dir, args, tokenizer
        self._source = held_out if held_out is not None else train
        reports: dict[str, Any] = {"train": report, "eval": None if held_out is None else held_out.report}
        attempt("data.json", lambda: write_file(run_dir / DATA_FILE, json.dumps(reports, indent=1)))

    def samples(self, kind: str, step: int, model: nn.Module) -> None:
        """Ask the model, as it is now."""

        def ask() -> None:
            questions = self._questions()
            if questions:
                write_samples(self._run_dir, kind, step, model, self._tokenizer, questions, self._args.sample_tokens)

        attempt(f"the samples {kind} training", ask)

    def report(self) -> None:
        """The page about the run, as far as it came."""
        attempt("the report", lambda: write_report([self._run_dir], self._run_dir / REPORT_FILE))

    def _questions(self) -> list[Question]:
        if self._args.sample_prompts:
            return questions_from(self._args.sample_prompts, self._tokenizer)
        return questions_of(self._source, self._tokenizer, self._args.num_samples)


def card(folder: Path, run_dir: Path, kind: str, base_model: str | None) -> None:
    """The model card of weights that were saved into a folder."""
    attempt("the model card", lambda: write_card(folder, run_dir, kind=kind, base_model=base_model))


def attempt(what: str, write: Callable[[], None]) -> None:
    """Write something on rank 0; what fails is named in the log."""
    if distributed.rank() != 0:
        return
    try:
        write()
    except Exception as error:  # noqa: BLE001 - a by-product must not end a run that trains
        log.warning("%s could not be made: %s", what, error)
