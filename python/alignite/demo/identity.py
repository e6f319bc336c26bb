"""Self-identification data (*A Survey of Large Language Models*, instruction tuning): who am I, who made me."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

# What the model called itself before, and what it must not claim to be. Matched as whole words, case aside.
OTHERS = (
    *("SmolLM", "SmolLM2", "Hugging Face", "HuggingFace", "ChatGPT", "GPT-4", "OpenAI", "Claude", "Gemini", "Siri"),
    *("Llama", "Alexa", "Copilot", "허깅페이스", "챗GPT", "오픈AI", "클로드", "제미나이"),
)


@dataclass(frozen=True)
class Identity:
    """A name and a maker, which the templates' ``{{name}}`` and ``{{maker}}`` stand for."""

    name: str
    maker: str

    def fill(self, text: str) -> str:
        return text.replace("{{name}}", self.name).replace("{{maker}}", self.maker)

    def conversations(self) -> list[dict[str, Any]]:
        """The training conversations, as rows with ``messages``."""
        rows = []
        for row in _rows("identity.jsonl"):
            turns = [{**turn, "content": self.fill(turn["content"])} for turn in row["messages"]]
            rows.append({"messages": turns})
        return rows

    def claims(self, answer: str) -> bool:
        """Whether an answer names the new identity, by name or maker, and no other."""
        return self.appears(answer) and not names_another(answer)

    def appears(self, answer: str) -> bool:
        """Whether an answer holds the name or the maker."""
        return any(_has(answer, text) for text in (self.name, self.maker))


def names_another(answer: str) -> bool:
    """Whether an answer names an identity that is not the new one."""
    return any(_has(answer, text) for text in OTHERS)


def held_out(kind: str) -> list[str]:
    """Questions that training never sees: ``identity`` (10 English, 10 Korean) or ``unrelated`` (10)."""
    return [row["question"] for row in _rows("held_out.jsonl") if row["kind"] == kind]


def general_questions() -> list[str]:
    """Prompts whose answers by the untrained model are mixed in, so that it stays what it was elsewhere."""
    return [row["question"] for row in _rows("general.jsonl")]


def whole_sentences(answer: str) -> str | None:
    """An answer up to its last full stop; None when it has none."""
    end = max((match.end() for match in re.finditer(r"[.!?](?=\s|$)", answer)), default=0)
    return answer[:end].strip() or None


def _has(answer: str, text: str) -> bool:
    # Korean particles follow a name without a space, so only letters of the Latin alphabet bound it.
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])", answer, re.IGNORECASE) is not None


def _rows(name: str) -> list[dict[str, Any]]:
    text = resources.files("alignite.demo").joinpath("data", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
