"""Which of a few choices a model's answer names, and how likely each was."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignite.client import Completion

if TYPE_CHECKING:
    from numpy.typing import NDArray

Generate = Callable[[str], "Completion | str"]
"""A prompt to what a model writes next: any callable; with a :class:`Completion`, its log-probabilities are used."""

_AROUND = " \t\r\n()[]{}<>.,:;!?\"'`*_=▁Ġ"
_NAMED = r"(?:preferred\s+response|preferred|better\s+response|answer|choice|verdict)\s*(?:is|:|=)*\s*[(\[{*\"']*"


def parse_choice(text: str, choices: Sequence[str]) -> str | None:
    """The choice that an answer names, or None where it names none or several.

    An answer is the choice alone, names it last behind "answer:" or "preferred response =", or holds one choice only,
    in brackets unless it is a number: "A" may be an article.
    """
    bare = {choice.casefold(): choice for choice in choices}
    if (alone := bare.get(text.strip(_AROUND).casefold())) is not None:
        return alone
    any_of = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True))
    named = re.findall(rf"{_NAMED}({any_of})(?!\w)", text, re.IGNORECASE)
    if named:
        return bare[named[-1].casefold()]
    found = set(re.findall(rf"[(\[{{*]({any_of})[)\]}}*]", text))
    found |= {number for number in re.findall(rf"(?<![\w.])({any_of})(?![\w%]|\.\d)", text) if number.isdigit()}
    return found.pop() if len(found) == 1 else None


def choice_probabilities(answer: Completion | str, choices: Sequence[str]) -> NDArray[np.float64] | None:
    """The chance of each choice: float64 (choices,), summing to 1; None where the answer cannot be read.

    With log-probabilities: the softmax over the choices at the first place whose likeliest tokens hold one, spellings
    such as "1" and " 1" summed; a choice that is not listed has chance 0. Else 1 for the choice that the text names.
    """
    if isinstance(answer, Completion):
        for token in answer.tokens:
            logs = _listed(token.top or {token.text: token.logprob}, choices)
            if np.isfinite(logs).any():
                chances: NDArray[np.float64] = np.exp(logs - np.logaddexp.reduce(logs))
                return chances
    named = parse_choice(str(answer), choices)
    if named is None:
        return None
    return np.array([float(choice == named) for choice in choices])


def _listed(top: Mapping[str, float], choices: Sequence[str]) -> NDArray[np.float64]:
    logs = np.full(len(choices), -np.inf)
    for text, logprob in top.items():
        bare = text.strip(_AROUND)
        for number, choice in enumerate(choices):
            if bare == choice:
                logs[number] = np.logaddexp(logs[number], logprob)
    return logs


def as_text(prompt: Any) -> str:
    """A prompt as one text: a text as it is, messages as ``role: content`` with blank lines between."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
