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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from alignite.config import SFTConfig
from alignite.data.hub import resolve_model
from alignite.data.prepare import check_unchanged, prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import AligniteError, Preempted, ResourceError
from alignite.models import memory
from alignite.models.loading import resolve_device
from alignite.peft import LoraConfig
from alignite.peft.lora import target_names
from alignite.peft.seat import weight_of
from alignite.trainers import resume
from alignite.trainers.base import check_apart, check_own, check_watching, lora_of, packed_source
from alignite.trainers.sft import SFTTrainer
from alignite.training import checkpoint
from alignite.training.best import Best
from alignite.training.lock import check_free
from alignite.training.trackers import make_trackers
from alignite.types import Callback, RunState, Update

TIME_ERROR, MEMORY_ERROR = 0.10, 0.15
"""How far real runs were from the estimates, as a share: benches/python/estimate.py, benches/RESULTS.md."""

_UPDATES = 3
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


def check_sft(args: SFTConfig, tell: Callable[[Finding], None] = lambda _: None) -> CheckReport:
    """Try a supervised fine-tuning run without leaving anything in its folder.

    Args:
        args: the run's config; ``model``, ``data`` and ``output_dir`` are needed.
        tell: is told of each finding as it is made.

    Returns:
        Everything that was found; errors are findings, so that one does not hide the next.
    """
    with _terminable():
        return _Check(args, tell).run()


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
    def __init__(self, args: SFTConfig, tell: Callable[[Finding], None]) -> None:
        self.args, self.tell, self.report = args, tell, CheckReport()
        self.run_dir = Path(args.output_dir or ".")
        self._model: torch.nn.Module | None = None
        self._saved: checkpoint.Checkpoint | None = None
        self._trained, self._adapter = 0, False
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
                found.text = self.options()
            with self.attempt("resume") as found:
                found.text = self.resume()
            with self.attempt("data") as found:
                train, held_out, found.text = self.prepare(scratch)
            with self.attempt("model") as found:
                found.text = self.model()
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

    def prepare(self, scratch: Path) -> tuple[PreparedSet, PreparedSet | None, str]:
        tokenizer = ChatTokenizer.from_folder(self.args.model or "")
        train = prepare_sft(self.args.data, tokenizer, self.args, scratch / "prepared")
        held_out = None
        if self.args.eval_data:
            held_out = prepare_sft(self.args.eval_data, tokenizer, self.args, scratch / "prepared-eval")
        report = self.report.data = train.report
        if self._saved is not None:
            check_unchanged(train.fingerprint, self._saved.state["source"]["fingerprint"], self.run_dir)
        self.report.updates = packed_source(train, self.args).num_updates
        lost = report["rows"] - report["used"]
        cut = sum(entry["count"] for entry in report["truncated"].values())
        text = f"{report['used']} of {report['rows']} rows ({report['format']}), {report['tokens']} tokens"
        done = self._saved.step if self._saved is not None else 0
        text += f", {report['scored_tokens']} scored, {self.report.updates} updates"
        text += f", {done} of them made" if done else ""
        text += f"; {lost} rows dropped" if lost else ""
        text += f"; {cut} rows cut" if cut else ""
        return train, held_out, text + (f"; {len(held_out)} held-out windows" if held_out is not None else "")

    def model(self) -> str:
        model = memory.empty_model(self.args.model or "")
        tokenizer = ChatTokenizer.from_folder(self.args.model or "")
        config = cast("Any", model).config
        tokenizer.check_fits(cast("Any", model).get_input_embeddings().weight.shape[0], config.to_dict())
        total = sum(p.numel() for p in model.parameters())
        trained, how = total, "all weights"
        lora = lora_of(self.args)
        if lora is not None:
            trained, how = _lora_parameters(model, lora), f"LoRA of rank {lora.r}"
        self._model, self._trained, self._adapter = model, trained, lora is not None
        return f"{type(model).__name__}, {total / 1e6:.1f}M parameters; {how} trains {trained / 1e6:.2f}M"

    def options(self) -> str:
        resolve_device(self.args.device)
        make_trackers(self.args)
        check_watching(self.args, bool(self.args.eval_data))
        check_apart(resolve_model(self.args.model or ""), self.run_dir)
        return "they go together"

    def resume(self) -> str:
        check_free(self.run_dir)
        saved = resume.find(self.run_dir, self.args) if self.run_dir.is_dir() else None
        if saved is None:
            check_own(self.run_dir)
            return "a fresh run"
        # The day that templates see is the first run's.
        date = self.args.template_date or saved.state["config"].get("template_date")
        self.args = replace(self.args, template_date=date)
        model = resolve_model(self.args.model or "")
        resume.check(saved, resume.saved_config(self.args, lora_of(self.args), model))
        self._saved = saved
        return f"the run would go on from {saved.folder.name}"

    def memory(self, train: PreparedSet) -> str:
        device = resolve_device(self.args.device)
        parts = packed_source(train, self.args).micro_batches(_heaviest(train, self.args))
        tokens = max(int(train.window_tokens(windows).sum()) for windows in parts)
        assert self._model is not None
        estimate = self.report.memory_estimate = memory.estimate_memory(
            self._model,
            trained=self._trained,
            tokens=tokens,
            dtype=self.args.dtype,
            adapter=self._adapter,
            gradient_checkpointing=self.args.gradient_checkpointing,
            logits_chunk_size=self.args.logits_chunk_size,
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
        run_dir = scratch / "run"
        quiet: dict[str, Any] = {"num_samples": 0, "sample_prompts": [], "trackers": [], "data": [], "eval_data": []}
        quiet |= {"metric_for_best_model": None, "load_best_model_at_end": False, "early_stopping_patience": 0}
        quiet |= {"save_steps": 0, "logging_steps": 1, "resume": "never", "output_dir": str(run_dir)}
        args = replace(self.args, **quiet, max_steps=_UPDATES)
        watch = _Watch()
        trainer = SFTTrainer(args=args, train_dataset=train, callbacks=[watch])
        trainer.display = False
        trainer.make_source = lambda prepared: _Probe(prepared, args)
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
        self._checkpoint_bytes = sum(f.stat().st_size for f in (run_dir / f"checkpoint-{_UPDATES}").rglob("*"))
        seconds += watch.saving * _times(self.args.save_steps, updates)
        self.report.seconds_estimate = seconds
        return (
            f"{_UPDATES} updates made, losses {', '.join(f'{loss:.3f}' for loss in watch.losses)}; "
            f"{1 / per_token:.0f} tokens/s, peak {_size(self.report.memory_measured)}; "
            f"the run takes about {_duration(seconds)} (±{TIME_ERROR:.0%})"
        )

    def _evaluation_seconds(self, trainer: SFTTrainer, held_out: PreparedSet) -> float:
        """By a part of the set: the windows are in the files' order, so the first are like the rest."""
        count = min(_EVALUATED, len(held_out))
        model = cast("torch.nn.Module", trainer.model)
        begin = time.perf_counter()
        found = trainer.evaluate_on(model, held_out, limit=count)
        Best.of(self.args).check(found)
        seconds = time.perf_counter() - begin
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


class _Watch(Callback):
    """Times what the estimate is made of; the first update, which warms up, does not count."""

    def __init__(self) -> None:
        self.tokens, self.seconds, self.saving = 0.0, 0.0, 0.0
        self.losses: list[float] = []
        self._before, self._logged = 0.0, 0.0

    def on_log(self, run: RunState, metrics: Mapping[str, float]) -> None:
        tokens = metrics["num_tokens"] - self._before
        self._before, self._logged = metrics["num_tokens"], time.perf_counter()
        self.losses.append(metrics["loss"])
        if run.step > 1:
            self.tokens += tokens
            self.seconds += tokens / metrics["tokens_per_second"]

    def on_save(self, run: RunState, folder: Path) -> None:
        self.saving = time.perf_counter() - self._logged


class _Probe:
    """An update source: the heaviest update that the set can give, then those that the run begins with."""

    def __init__(self, prepared: PreparedSet, args: SFTConfig) -> None:
        self._real = packed_source(prepared, args)
        self._prepared, self._args, self._made, self._tokens = prepared, args, 0, 0
        self.num_updates: int | None = _UPDATES

    def next_update(self) -> Update | None:
        if self._made == _UPDATES:
            return None
        self._made += 1
        if self._made == 1:
            parts = self._real.micro_batches(_heaviest(self._prepared, self._args))
            batches = [self._prepared.batch(part) for part in parts]
        else:
            update = self._real.next_update()
            assert update is not None, "the probe's config asks for as many updates as are made here"
            batches = list(update.batches)
        self._tokens += sum(batch.num_tokens for batch in batches)
        return Update(batches, 0.0, self._tokens)

    def after_update(self, metrics: Mapping[str, float]) -> None:
        return

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return


def _heaviest(prepared: PreparedSet, args: SFTConfig) -> NDArray[np.int64]:
    """The longest windows, as many as a batch holds."""
    tokens = prepared.window_tokens(np.arange(len(prepared)))
    return np.argsort(-tokens, kind="stable")[: args.per_device_train_batch_size].astype(np.int64)


def _tokens_of_run(prepared: PreparedSet, args: SFTConfig) -> float:
    source = packed_source(prepared, args)
    return float(prepared.report["tokens"]) * (source.num_updates or 0) / source.updates_per_epoch


def _lora_parameters(model: torch.nn.Module, lora: LoraConfig) -> int:
    shapes = [weight_of(model.get_submodule(name)).shape for name in target_names(model, lora)]
    return sum(lora.r * (rows + columns) for rows, columns in shapes)


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
