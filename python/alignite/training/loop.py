"""The one training loop. It knows updates, columns and terms, and no kind of objective.

An update is: counts over all micro-batches and ranks, then for each
micro-batch the columns, the terms divided by those counts, and backward; then
the gradients' sum over ranks, the checks, the step. However an update is split,
its loss and gradient are the same.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignite.config import TrainingConfig
from alignite.errors import AligniteError, NumericsError, Preempted
from alignite.models.columns import compute_columns, prepass
from alignite.training import checkpoint, distributed, rng
from alignite.training.best import Best
from alignite.training.metrics import MetricsWriter, Totals, add_to
from alignite.training.optim import Optimizer, learning_rate
from alignite.training.suspects import named, suspects
from alignite.types import Callback, Objective, Role, RunState, Update, UpdateSource, divisor, module_of

log = logging.getLogger("alignite")


@dataclass(frozen=True)
class TrainResult:
    """Where a run ended.

    Args:
        step: updates applied in all. ``metrics``: the last of each.
        was_finished: there was nothing left to do.
        stopped: why it ended before its last update; empty when it did not.
        best_step: the checkpoint with the best ``metric_for_best_model``, whose value is ``best_value``.
    """

    step: int
    metrics: dict[str, float]
    was_finished: bool = False
    stopped: str = ""
    best_step: int | None = None
    best_value: float | None = None


@dataclass
class Weights:
    """How the trained weights of a run are written to a folder and read back."""

    save: Callable[[Path], None]
    load: Callable[[Path], None]


@dataclass
class Loop:
    """Everything a run consists of.

    Args:
        models: causal LMs by role; ``policy`` is the one that is trained.
        evaluate: gives metrics on held-out data, or None; ``evaluated_on`` is the data's fingerprint.
        run_dir: the run's folder.
        saved_config: the configuration as a checkpoint keeps it.
        callbacks: what watches the run; used on rank 0.
        display: whether progress is shown to people.
    """

    models: Mapping[str, nn.Module | Role]
    objective: Objective
    source: UpdateSource
    optimizer: Optimizer
    config: TrainingConfig
    weights: Weights
    run_dir: Path
    evaluate: Callable[[], dict[str, float]] | None = None
    evaluated_on: str | None = None
    saved_config: dict[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()
    display: bool = True
    step: int = 0
    _last: dict[str, float] = field(default_factory=dict)
    _resumed: Totals = field(default_factory=lambda: Totals())
    _stop: int | None = None

    def __post_init__(self) -> None:
        self._best = Best.of(self.config, self.evaluated_on)

    @property
    def _policy(self) -> nn.Module:
        return module_of(self.models["policy"])

    def run(self, resume: checkpoint.Checkpoint | None = None) -> TrainResult:
        """Train until the source has no more updates, or something asks to stop.

        Raises:
            NumericsError: a loss or gradient was not finite; the update was not applied.
            Preempted: SIGTERM came; a checkpoint was saved first. KeyboardInterrupt: likewise for Ctrl-C.
            ResourceError: a checkpoint or the metrics could not be written.
        """
        metrics_size = self._restore(resume) if resume is not None else None
        total = self.source.num_updates
        if self._best.exhausted or (total is not None and self.step >= total):
            return self._result(was_finished=True, stopped=self._best.reason if self._best.exhausted else "")
        path = self.run_dir / "metrics.jsonl" if distributed.rank() == 0 else None
        device = next(self._policy.parameters()).device
        run = RunState(self.run_dir, self.saved_config, total, self.step, dict(self._last))
        with MetricsWriter(path, total, metrics_size, self.display) as writer, self._signals(), self._watched(run):
            saved = self.step
            totals, self._resumed = self._resumed, Totals()
            while (update := self.source.next_update()) is not None:
                rate = learning_rate(self.config, self.step, total or self.step + 1)
                self._update(update, rate, device, totals)
                self.step = run.step = self.step + 1
                done = self.step == total
                if done or self.step % self.config.logging_steps == 0:
                    found = totals.metrics() | {
                        "learning_rate": rate,
                        "epoch": update.epoch,
                        "num_tokens": float(update.num_tokens),
                    }
                    self._last = found
                    self._report(writer, run, "on_log", found)
                    totals = Totals()
                self.source.after_update(self._last)
                every, improved = self.config.eval_steps, False
                if self.evaluate is not None and (done or (every > 0 and self.step % every == 0)):
                    found = self._evaluate()
                    self._last = self._last | found
                    self._report(writer, run, "on_evaluate", found)
                    improved = self._best.update(self.step, found)
                    if self._best.exhausted and not done:
                        run.request_stop(self._best.reason)
                # What rank 0 has decided or was told, every rank does.
                stop, run.reason, improved = distributed.broadcast((self._stop, run.reason, improved))
                every = self.config.save_steps
                ends = done or stop is not None or bool(run.reason)
                if ends or improved or (every > 0 and self.step % every == 0):
                    self._save(writer, totals, run)
                    saved = self.step
                if stop is not None and not done:
                    raise _interruption(stop, self.step, self.run_dir)
                if ends:
                    break
            if saved != self.step:
                self._save(writer, totals, run)
        return self._result(stopped=run.reason if self.step != total else "")

    def _result(self, was_finished: bool = False, stopped: str = "") -> TrainResult:
        return TrainResult(self.step, self._last, was_finished, stopped, self._best.step, self._best.value)

    def _report(self, writer: MetricsWriter, run: RunState, event: str, metrics: dict[str, float]) -> None:
        writer.log(self.step, metrics)
        run.metrics |= metrics
        self._tell(event, run, metrics)

    def _tell(self, event: str, *args: Any) -> None:
        if distributed.rank() == 0:
            for callback in self.callbacks:
                getattr(callback, event)(*args)

    @contextmanager
    def _watched(self, run: RunState) -> Iterator[None]:
        """Tell the callbacks of the start and, whichever way it comes, of the end."""
        try:
            self._tell("on_train_begin", run)
            yield
        except BaseException as error:
            run.outcome = "preempted" if isinstance(error, Preempted | KeyboardInterrupt) else "failed"
            run.reason = error.what if isinstance(error, AligniteError) else f"{type(error).__name__}: {error}"
            try:
                self._tell("on_train_end", run)
            except Exception as another:  # noqa: BLE001 - the error that ended the run is the one to raise
                log.warning("a callback failed at the end of the run: %s", another)
            raise
        run.outcome = "finished" if self.step == run.num_updates or not run.reason else "stopped"
        self._tell("on_train_end", run)

    def _update(self, update: Update, rate: float, device: torch.device, totals: Totals) -> None:
        start = time.perf_counter()
        policy = self._policy
        policy.train()
        batches = prepass(
            self.models,
            [batch.to(device) for batch in update.batches],
            self.objective,
            distributed.sum_floats,
            chunk_size=self.config.logits_chunk_size,
        )
        counts: dict[str, float] = {}
        for batch in batches:
            for name, count in self.objective.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + count
        counts = distributed.sum_floats(counts)
        sums: dict[str, float] = {}
        rows: list[str] = []
        for batch in batches:
            rows += self._micro_batch(batch, counts, sums)
        distributed.sum_gradients(self.optimizer.parameters.values())
        sums = distributed.sum_floats(sums)
        norm = self.optimizer.gradient_norm()
        self._check(sums, norm, batches, rows)
        self.optimizer.step(rate, norm)
        totals.add(sums, float(norm), sum(batch.num_tokens for batch in update.batches), time.perf_counter() - start)

    def _micro_batch(self, batch: Any, counts: Mapping[str, float], sums: dict[str, float]) -> list[str]:
        """Add to the gradients and sums; gives the rows that a loss which is not finite comes from."""
        columns = compute_columns(self.models, batch, self.objective.columns, chunk_size=self.config.logits_chunk_size)
        output = self.objective.loss(columns, batch)
        loss: Tensor | None = None
        is_finite = True
        for name, term in output.terms.items():
            # A term with nothing to count adds a zero that keeps the graph whole.
            part = term.sum * (term.weight / divisor(counts[name]))
            loss = part if loss is None else loss + part
            value = float(part.detach())
            is_finite = is_finite and _finite(value)
            add_to(sums, "loss", value)
            add_to(sums, f"term/{name}", value)
        if loss is not None and loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for name, (total, count) in output.metrics.items():
            add_to(sums, f"sum/{name}", total)
            add_to(sums, f"count/{name}", count)
        return [] if is_finite else suspects(batch, columns)

    def _check(self, sums: Mapping[str, float], norm: Tensor, batches: Sequence[Any], rows: Sequence[str]) -> None:
        terms = [
            name.removeprefix("term/")
            for name, value in sums.items()
            if name.startswith("term/") and not _finite(value)
        ]
        if not terms and bool(torch.isfinite(norm)):
            return
        bad = self.optimizer.bad_gradients()
        self.optimizer.zero_grad()
        shown = ", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        rows = rows or [place for batch in batches for place in getattr(batch, "places", ())]
        why = [f"gradients that are not finite: {shown}"] if bad else []
        why += [f"rows: {named(rows)}"] if rows else []
        raise NumericsError(
            f"the {'loss' if terms else 'gradient'} of update {self.step + 1} is not finite; it was not applied",
            where=", ".join(terms) or shown,
            why="; ".join(why) or None,
            fix="lower learning_rate, use dtype float32, or look at the rows of this update; "
            "the last checkpoint is as it was",
        )

    def _evaluate(self) -> dict[str, float]:
        assert self.evaluate is not None
        policy = self._policy
        policy.eval()
        try:
            return self.evaluate()
        finally:
            policy.train()

    def _save(self, writer: MetricsWriter, totals: Totals, run: RunState) -> None:
        random = rng.capture()
        if distributed.rank() == 0:
            state = {
                "source": self.source.state_dict(),
                "objective": self.objective.state_dict(),
                "config": self.saved_config,
                "metrics": self._last,
                "metrics_size": writer.size(),
                "totals": asdict(totals),
                "best": self._best.state_dict(),
                "versions": checkpoint.versions(),
            }
            tensors = self.optimizer.state_tensors()
            folder = checkpoint.write_checkpoint(self.run_dir, self.step, state, tensors, random, self.weights.save)
            checkpoint.prune(self.run_dir, self.config.save_total_limit, self.step, self._best.step)
            self._tell("on_save", run, folder)
        distributed.barrier()

    def _restore(self, saved: checkpoint.Checkpoint) -> int:
        self.source.load_state_dict(saved.state["source"])
        self.objective.load_state_dict(saved.state["objective"])
        self.weights.load(saved.folder)
        self.optimizer.load_state_tensors(saved.optimizer())
        rng.restore(saved.random(), self.config.seed + saved.step)
        self.step = saved.step
        self._last = dict(saved.state["metrics"])
        self._resumed = Totals(**saved.state["totals"])
        self._best.load_state_dict(saved.state.get("best", {}))
        return int(saved.state["metrics_size"])

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Note SIGTERM and SIGINT and finish the update first; a second one acts as it always did."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def note(number: int, _: Any) -> None:
            self._stop = number
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _interruption(number: int, step: int, run_dir: Path) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt(f"stopped after update {step}; the same command continues from checkpoint-{step}")
    return Preempted(
        f"told to stop after update {step}; a checkpoint was saved",
        where=str(run_dir / f"checkpoint-{step}"),
        fix="run the same command again to continue",
    )


def _finite(value: float) -> bool:
    return value - value == 0.0
