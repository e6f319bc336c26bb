"""A dry run: everything that can go wrong in a run is tried first, with real updates, in a folder that goes away.

Three updates are made, by the loop and with the checkpoint that a run would make them: the heaviest one, for the peak
of memory; then the run's first and second, whose rate stands for all. What the estimates are worth was measured on
real runs: see benches/RESULTS.md.
"""

from __future__ import annotations

import math
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from alignite.config import TrainingConfig
from alignite.data.hub import resolve_model
from alignite.data.prepare import check_unchanged
from alignite.data.prepared import PreparedSet
from alignite.errors import AligniteError, ConfigError, Preempted, ResourceError, UsageError
from alignite.models import memory
from alignite.models.loading import resolve_device
from alignite.peft import LoraConfig
from alignite.peft.lora import saved_names, target_names
from alignite.peft.seat import weight_of
from alignite.trainers import resume
from alignite.trainers.base import Trainer, check_apart, check_own, check_watching, packed_source
from alignite.trainers.trial import UPDATES, Probe, Watch, heaviest
from alignite.training import checkpoint
from alignite.training.best import Best
from alignite.training.lock import check_free
from alignite.training.trackers import make_trackers

TIME_ERROR, MEMORY_ERROR = 0.10, 0.15
"""How far real runs were from the estimates, as a share: benches/python/estimate.py, benches/RESULTS.md."""
_EVALUATED = 16


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what it is, whether it is well, and what was seen."""

    name: str
    ok: bool
    text: str
    error: AligniteError | None = None


@dataclass
class CheckReport:
    """What a dry run found. Bytes and seconds; a number is None where it could not be had."""

    findings: list[Finding] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    updates: int | None = None
    memory_estimate: memory.MemoryEstimate | None = None
    memory_measured: int | None = None
    memory_free: int | None = None
    seconds_per_update: float | None = None
    seconds_estimate: float | None = None
    disk_needed: int | None = None
    disk_free: int | None = None

    @property
    def errors(self) -> list[AligniteError]:
        return [finding.error for finding in self.findings if finding.error is not None]


def check_run(
    make: Callable[..., Trainer], args: TrainingConfig, tell: Callable[[Finding], None] = lambda _: None
) -> CheckReport:
    """Try a training run without leaving anything in its folder.

    Args:
        make: the trainer's class, such as :class:`alignite.SFTTrainer`; called with ``args`` and, later, with
            ``train_dataset`` and ``callbacks``.
        args: the run's config; ``model``, ``data`` and ``output_dir`` are needed.
        tell: is told of each finding as it is made.

    Returns:
        Everything that was found; errors are findings, so that one does not hide the next.
    """
    with _terminable():
        return _Check(make, args, tell).run()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM as Ctrl-C, so that the folder goes away with the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt("stopped; nothing is left behind")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Check:
    def __init__(self, make: Callable[..., Trainer], args: TrainingConfig, tell: Callable[[Finding], None]) -> None:
        self.make, self.args, self.tell, self.report = make, args, tell, CheckReport()
        self.run_dir = Path(args.output_dir or ".")
        self._trainer: Trainer | None = None
        self._model: torch.nn.Module | None = None
        self._saved: checkpoint.Checkpoint | None = None
        self._trained, self._kept, self._adapter = 0, 0, False
        self._checkpoint_bytes: int | None = None

    def run(self) -> CheckReport:
        home = _nearest(self.run_dir)
        with self.attempt("output_dir") as found:
            found.text = self.folder(home)
        # On the disk that the run will write to, if it may; a full or read-only one is a finding already.
        place = home if not self.report.errors else None
        with tempfile.TemporaryDirectory(prefix=".alignite-check-", dir=place) as name:
            scratch = Path(name)
            train = held_out = None
            with self.attempt("options") as found:
                found.text = self.options(scratch)
            with self.attempt("resume") as found:
                found.text = self.resume(scratch)
            with self.attempt("data") as found:
                train, held_out, found.text = self.prepare(scratch)
            with self.attempt("model") as found:
                found.text = self.model(scratch)
            if train is not None and self._model is not None:
                with self.attempt("memory") as found:
                    found.text = self.memory(train)
            if train is not None and not self.report.errors:
                with self.attempt("step") as found:
                    found.text = self.step(scratch, train, held_out)
            with self.attempt("disk") as found:
                found.text = self.disk(home, scratch)
        return self.report

    def attempt(self, name: str) -> _Attempt:
        return _Attempt(self, name)

    def folder(self, home: Path) -> str:
        try:
            with tempfile.TemporaryFile(dir=home):
                pass
        except OSError as error:
            raise ResourceError(
                "output_dir cannot be written",
                where=str(self.run_dir),
                why=f"{home}: {error.strerror}",
                fix="choose a folder that you may write",
            ) from error
        return f"{self.run_dir} can be written"

    def trainer(self, scratch: Path, **given: Any) -> Trainer:
        """The run's trainer in a folder that goes away, without what only a long run is for."""
        quiet: dict[str, Any] = {"num_samples": 0, "sample_prompts": [], "trackers": [], "data": [], "eval_data": []}
        quiet |= {"metric_for_best_model": None, "load_best_model_at_end": False, "early_stopping_patience": 0}
        quiet |= {"save_steps": 0, "logging_steps": 1, "resume": "never", "output_dir": str(scratch / "run")}
        if given and getattr(self.args, "precompute_ref_log_probs", False):
            # Of all rows it would be no trial; each update's own take as long as they take in the run's one pass.
            quiet["precompute_ref_log_probs"] = False
        trainer = self.make(args=replace(self.args, **quiet, max_steps=UPDATES), **given)
        trainer.display = False
        return trainer

    def looked_at(self, scratch: Path) -> Trainer:
        """The trainer whose options, data and model are looked at; made once."""
        self._trainer = self._trainer or self.trainer(scratch)
        return self._trainer

    def prepare(self, scratch: Path) -> tuple[PreparedSet, PreparedSet | None, str]:
        trainer = self.looked_at(scratch)
        if hasattr(self.args, "template_date"):
            trainer.args.template_date = self.args.template_date  # type: ignore[attr-defined]
        train = trainer.prepare(self.args.data, trainer.tokenizer, scratch / "prepared", None)
        held_out = None
        if self.args.eval_data:
            held_out = trainer.prepare(self.args.eval_data, trainer.tokenizer, scratch / "prepared-eval", None)
        report = self.report.data = trainer.reported(train)
        if self._saved is not None:
            check_unchanged(train.fingerprint, self._saved.state["source"]["fingerprint"], self.run_dir)
        self.report.updates = packed_source(train, self.args, groups=trainer.groups(train)).num_updates
        lost = report["rows"] - report["used"]
        cut = sum(entry["count"] for entry in report["truncated"].values())
        text = f"{report['used']} of {report['rows']} rows ({report['format']}), {report['tokens']} tokens"
        done = self._saved.step if self._saved is not None else 0
        text += f", {report['scored_tokens']} scored, {self.report.updates} updates"
        text += f", {done} of them made" if done else ""
        text += f"; {lost} rows dropped" if lost else ""
        text += f"; {cut} rows cut" if cut else ""
        return train, held_out, text + (f"; {len(held_out)} held-out windows" if held_out is not None else "")

    def model(self, scratch: Path) -> str:
        trainer = self.looked_at(scratch)
        model = trainer.empty_model()
        config = cast("Any", model).config
        trainer.tokenizer.check_fits(cast("Any", model).get_input_embeddings().weight.shape[0], config.to_dict())
        total = memory.count_parameters(model)
        self._kept = trainer.kept_parameters(model)
        trained, how = total, "all weights"
        lora = trainer.peft_config
        if lora is not None:
            trained, how = _lora_parameters(model, lora), f"LoRA of rank {lora.r}"
        self._model, self._trained, self._adapter = model, trained, lora is not None
        return f"{type(model).__name__}, {total / 1e6:.1f}M parameters; {how} trains {trained / 1e6:.2f}M"

    def options(self, scratch: Path) -> str:
        resolve_device(self.args.device)
        make_trackers(self.args)
        check_watching(self.args, bool(self.args.eval_data))
        check_apart(resolve_model(self.args.model or ""), self.run_dir)
        try:
            self.looked_at(scratch)
        except (ConfigError, UsageError):
            raise
        except AligniteError:
            pass  # a matter of the model's or the tokenizer's files, which is told where they are looked at
        return "they go together"

    def resume(self, scratch: Path) -> str:
        check_free(self.run_dir)
        saved = resume.find(self.run_dir, self.args) if self.run_dir.is_dir() else None
        if saved is None:
            check_own(self.run_dir, getattr(self.make, "method", ""))
            return "a fresh run"
        # The day that templates see is the first run's.
        if hasattr(self.args, "template_date"):
            date = self.args.template_date or saved.state["config"].get("template_date")
            changed: dict[str, Any] = {"template_date": date}
            self.args = replace(self.args, **changed)
        model = resolve_model(self.args.model or "")
        trainer = self.looked_at(scratch)
        resume.check(saved, resume.saved_config(self.args, trainer.peft_config, model, trainer.method))
        self._saved = saved
        return f"the run would go on from {saved.folder.name}"

    def memory(self, train: PreparedSet) -> str:
        device = resolve_device(self.args.device)
        parts = packed_source(train, self.args).micro_batches(heaviest(train, self.args))
        tokens = max(int(train.window_tokens(windows).sum()) for windows in parts)
        assert self._model is not None
        assert self._trainer is not None
        asked = self._trainer.objective.columns
        estimate = self.report.memory_estimate = memory.estimate_memory(
            self._model,
            trained=self._trained,
            tokens=tokens,
            dtype=self.args.dtype,
            adapter=self._adapter,
            gradient_checkpointing=self.args.gradient_checkpointing,
            logits_chunk_size=self.args.logits_chunk_size if asked - {"policy.score", "policy.step_logits"} else 0,
            kept=self._kept,
            process=memory.resident_bytes() + memory.ALLOCATOR_BYTES if device.type == "cpu" else 0,
        )
        free = memory.free_bytes(device)
        self.report.memory_free = free
        text = f"about {_size(estimate.total)} (±{MEMORY_ERROR:.0%}) in micro-batches of up to {tokens} tokens"
        if free is None:
            return text
        needed = estimate.total - estimate.process
        if needed * (1 - MEMORY_ERROR) > free:
            raise ResourceError(
                f"the run needs {text} and {_size(free + estimate.process)} are there",
                where=str(device),
                why=f"weights {_size(estimate.weights)}, gradients {_size(estimate.gradients)}, optimizer "
                f"{_size(estimate.optimizer)}, activations {_size(estimate.activations)}",
                fix="use_peft, dtype: bfloat16, a smaller micro_batch_tokens or max_length, or gradient_checkpointing",
            )
        return f"{text}; {_size(free)} are free"

    def step(self, scratch: Path, train: PreparedSet, held_out: PreparedSet | None) -> str:
        device = resolve_device(self.args.device)
        watch = Watch()
        trainer = self.trainer(scratch, train_dataset=train, callbacks=[watch])
        real = trainer.make_source
        trainer.make_source = lambda prepared: Probe(real(prepared), prepared, trainer.args)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trainer.train()
        self.report.memory_measured = memory.peak_bytes(device)
        per_token = watch.seconds / max(watch.tokens, 1)
        everything = self.report.updates or 0
        updates = max(everything - (self._saved.step if self._saved is not None else 0), 0)
        total = _tokens_of_run(train, self.args) * updates / max(everything, 1)
        self.report.seconds_per_update = per_token * total / max(updates, 1)
        seconds = per_token * total
        if held_out is not None:
            seconds += self._evaluation_seconds(trainer, held_out) * _times(self.args.eval_steps, updates)
        self._checkpoint_bytes = sum(f.stat().st_size for f in (scratch / "run" / f"checkpoint-{UPDATES}").rglob("*"))
        seconds += watch.saving * _times(self.args.save_steps, updates)
        self.report.seconds_estimate = seconds
        return (
            f"{UPDATES} updates made, losses {', '.join(f'{loss:.3f}' for loss in watch.losses)}; "
            f"{1 / per_token:.0f} tokens/s, peak {_size(self.report.memory_measured)}; "
            f"the run takes about {_duration(seconds)} (±{TIME_ERROR:.0%})"
        )

    def _evaluation_seconds(self, trainer: Trainer, held_out: PreparedSet) -> float:
        """By a part of the set: the windows are in the files' order, so the first are like the rest."""
        count = min(_EVALUATED, len(held_out))
        model = cast("torch.nn.Module", trainer.model)
        begin = time.perf_counter()
        found = trainer.evaluate_on(model, held_out, limit=count)
        seconds = time.perf_counter() - begin
        trainer.check_metric(Best.of(self.args), model, held_out, found)
        tokens = held_out.window_tokens(np.arange(len(held_out))).sum()
        return seconds * float(tokens) / float(held_out.window_tokens(np.arange(count)).sum())

    def disk(self, home: Path, scratch: Path) -> str:
        free = self.report.disk_free = shutil.disk_usage(home).free
        prepared = sum(f.stat().st_size for name in ("prepared", "prepared-eval") for f in (scratch / name).glob("*"))
        if self._checkpoint_bytes is None:
            return f"{_size(free)} are free"
        saves = _times(self.args.save_steps, self.report.updates or 0)
        # One more while it is written, one for the best, and the weights at the end.
        limit = self.args.save_total_limit
        kept = (min(saves, limit) if limit else saves) + 2 + int(self.args.watches_best)
        needed = self.report.disk_needed = prepared + kept * self._checkpoint_bytes
        text = f"{_size(needed)} for {kept} times {_size(self._checkpoint_bytes)} and the prepared data"
        if needed > free:
            raise ResourceError(
                f"the run needs {text}, and {_size(free)} are free",
                where=str(home),
                fix="free some space, or lower save_total_limit",
            )
        return f"{text}; {_size(free)} are free"


class _Attempt:
    """A stage: what it raises on purpose becomes a finding, and the next stage goes on."""

    def __init__(self, check: _Check, name: str) -> None:
        self._check, self._name, self.text = check, name, ""

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if isinstance(error, Preempted):
            raise KeyboardInterrupt("stopped; nothing is left behind") from None
        if error is not None and not isinstance(error, AligniteError):
            return False
        finding = Finding(self._name, error is None, str(error) if error is not None else self.text, error)
        self._check.report.findings.append(finding)
        self._check.tell(finding)
        return True


def _tokens_of_run(prepared: PreparedSet, args: TrainingConfig) -> float:
    source = packed_source(prepared, args)
    return float(prepared.report["tokens"]) * (source.num_updates or 0) / source.updates_per_epoch


def _lora_parameters(model: torch.nn.Module, lora: LoraConfig) -> int:
    shapes = [weight_of(model.get_submodule(name)).shape for name in target_names(model, lora)]
    whole = sum(weight_of(model.get_submodule(name)).numel() for name in saved_names(model, lora))
    return whole + sum(lora.r * (rows + columns) for rows, columns in shapes)


def _times(every: int, updates: int) -> int:
    """How often something happens that comes every so many updates and at the end."""
    return math.ceil(updates / every) if every else 1


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest one above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
