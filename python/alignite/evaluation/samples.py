"""What a model answers to a few prompts, before and after training: samples.jsonl in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignite.files import write_file
from alignite.models.generation import Prompt, generate_text
from alignite.types import IGNORE

if TYPE_CHECKING:
    from torch import nn

    from alignite.data.prepared import PreparedSet
    from alignite.data.tokenizer import ChatTokenizer

SAMPLES_FILE = "samples.jsonl"
# Raw text has no prompt: its beginning is one.
_SHORTEST_PROMPT, _BEGINNING = 4, 16


@dataclass(frozen=True)
class Question:
    """A prompt as it is shown and as it is sent, and what the data answers to it."""

    shown: str
    sent: Prompt
    reference: str | None = None


def questions_of(prepared: PreparedSet, tokenizer: ChatTokenizer, count: int) -> list[Question]:
    """The prompts of the first rows of a set: each row up to its first scored token, which begins the reference."""
    found = []
    for window in range(min(count, len(prepared))):
        ids, labels, _, segments = prepared.arrays([window])
        start, length, _ = segments[0].tolist()
        ids, labels = ids[start : start + length], labels[start : start + length]
        scored = np.flatnonzero(labels != IGNORE)
        if not len(scored):
            continue
        first = int(scored[0])
        if first < _SHORTEST_PROMPT:
            first = min(_BEGINNING, max(length // 2, 1))
        gaps = np.flatnonzero(labels[first:] == IGNORE)
        end = first + int(gaps[0]) if len(gaps) else length
        prompt = tokenizer.decode(ids[:first].tolist())
        reference = tokenizer.decode(ids[first:end].tolist(), skip_special_tokens=True)
        shown = tokenizer.decode(ids[:first].tolist(), skip_special_tokens=True)
        # As ids: text that reads like a control token would become one on the way through text.
        found.append(Question(shown.strip() or prompt, ids[:first].tolist(), reference.strip()))
    return found


def questions_from(prompts: Sequence[str], tokenizer: ChatTokenizer) -> list[Question]:
    """User messages in the model's chat template, or raw texts for a model that has none."""
    chats = tokenizer.chat_template is not None
    return [Question(text, [{"role": "user", "content": text}] if chats else text) for text in prompts]


def write_samples(
    folder: Path,
    kind: str,
    step: int,
    model: nn.Module,
    tokenizer: ChatTokenizer,
    questions: Sequence[Question],
    max_new_tokens: int,
) -> None:
    """Answer greedily and append the answers to the run's samples.jsonl.

    Args:
        folder: the run's. ``kind``: ``before`` or ``after``; earlier lines of the same kind are replaced.

    Raises:
        ResourceError: the file cannot be written.
    """
    answers = generate_text(model, tokenizer, [q.sent for q in questions], max_new_tokens=max_new_tokens)
    path = folder / SAMPLES_FILE
    lines = [json.dumps(line, ensure_ascii=False) for line in read_samples(folder) if line.get("kind") != kind]
    for question, answer in zip(questions, answers, strict=True):
        sample = Sample(step, kind, question.shown, answer, question.reference)
        lines.append(json.dumps(asdict(sample), ensure_ascii=False))
    write_file(path, "\n".join(lines) + "\n")


@dataclass(frozen=True)
class Sample:
    """A line of samples.jsonl."""

    step: int
    kind: str
    prompt: str
    answer: str
    reference: str | None


def read_samples(folder: Path) -> list[dict[str, object]]:
    """The lines of samples.jsonl that can be read; none when there is no such file."""
    try:
        # At newlines only: an answer may hold other characters that splitlines would take for a line's end.
        lines = (folder / SAMPLES_FILE).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
