"""What every trainer does around the loop: the run's folder, the model, the data, resuming."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from alignite.config import TrainingConfig
from alignite.data.hub import resolve_model
from alignite.data.hub_access import HubName
from alignite.data.prepare import check_unchanged
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer, resolve_date
from alignite.errors import CheckpointError, ConfigError, ResourceError, UsageError
from alignite.evaluation.loss import evaluate_loss
from alignite.files import write_file
from alignite.models.checkpointing import enable_gradient_checkpointing
from alignite.models.loading import load_model, resolve_device, save_model
from alignite.models.memory import empty_model
from alignite.models.routing import check_length
from alignite.peft import LoraConfig, adapter_parameters, apply_adapter, checkpoint_context_fn, save_adapter
from alignite.peft.files import fill_adapter
from alignite.trainers import record, resume
from alignite.training import checkpoint, distributed, rng
from alignite.training.best import Best
from alignite.training.history import History, method_before
from alignite.training.lock import run_lock
from alignite.training.loop import Loop, TrainResult, Weights
from alignite.training.optim import Optimizer
from alignite.training.source import CPU_MICRO_BATCH_TOKENS, PackedSource
from alignite.training.trackers import make_trackers
from alignite.types import Callback, Objective, Role, UpdateSource

Dataset = PreparedSet | str | Path | Iterable[str | Path] | Iterable[Mapping[str, Any]]
Config = TypeVar("Config", bound=TrainingConfig)
CONFIG_FILE = "config.yaml"
log = logging.getLogger("alignite")


class Trainer:
    """The part that methods share; a facade gives it an objective, a way to prepare rows, and a source of updates.

    Args:
        model: a transformers folder, or a loaded causal LM (then ``processing_class`` says whose tokenizer).
        args: the method's config; ``output_dir`` is needed.
        prepare: rows to a prepared set in a folder.
        source: a prepared set to updates.
        callbacks: what watches the run besides its own records and ``trackers``.
    """

    method = ""
    """What the run does, by the name of its command or objective; its records and its card say so."""

    answers = True
    """Whether the model writes texts, so that a run shows some from before and after."""

    def __init__(
        self,
        model: str | Path | nn.Module | None,
        args: TrainingConfig,
        train_dataset: Dataset | None,
        eval_dataset: Dataset | None,
        processing_class: ChatTokenizer | str | Path | None,
        peft_config: Any,
        callbacks: Sequence[Callback] = (),
        *,
        objective: Objective,
        prepare: Callable[[Any, ChatTokenizer, Path, str | None], PreparedSet],
        source: Callable[[PreparedSet], UpdateSource],
    ) -> None:
        args.validate()
        given = model if model is not None else args.model
        if given is None:
            raise UsageError("no model is given", fix="give a transformers folder as model")
        if not args.output_dir:
            raise UsageError("no output_dir is given", fix="give a folder for the run")
        self.args = args
        self.run_dir = Path(args.output_dir)
        # A hub's id stands for the folder that its files are in; what is written down is the id.
        self.model_name = str(given) if isinstance(given, str | Path) else None
        self.model_folder = resolve_model(given) if isinstance(given, str | Path) else None
        self._given_model = given if isinstance(given, nn.Module) else None
        self._train_dataset = train_dataset if train_dataset is not None else (args.data or None)
        self._eval_dataset = eval_dataset if eval_dataset is not None else (args.eval_data or None)
        if processing_class is None and self.model_folder is None:
            raise UsageError("a loaded model needs a processing_class", fix="give the folder that its tokenizer is in")
        chosen: Any = processing_class if processing_class is not None else self.model_folder
        if not isinstance(chosen, ChatTokenizer | str | Path):  # transformers' tokenizer, as TRL takes it
            folder = str(getattr(chosen, "name_or_path", ""))
            if not Path(folder).is_dir() and HubName.parse(folder) is None:
                raise UsageError(
                    f"processing_class is a {type(chosen).__name__} that was not read from a folder or the hub",
                    fix="save it with save_pretrained(folder) and give the folder",
                )
            chosen = folder
        self.tokenizer = chosen if isinstance(chosen, ChatTokenizer) else ChatTokenizer.from_folder(chosen)
        self.peft_config = LoraConfig.from_any(peft_config) if peft_config is not None else lora_of(args)
        check_apart(self.model_folder, self.run_dir)
        check_watching(args, self._eval_dataset is not None)
        strange = [callback for callback in callbacks if not isinstance(callback, Callback)]
        if strange:
            raise UsageError(
                f"callbacks has a {type(strange[0]).__name__}",
                why="transformers' callbacks expect its Trainer" if hasattr(strange[0], "on_step_end") else None,
                fix="subclass alignite.Callback",
            )
        self.callbacks: list[Callback] = [History(), *make_trackers(args), *callbacks]
        self.objective = objective
        self.method = self.method or type(objective).__name__
        self.prepare = prepare
        self.make_source = source
        self.display = True
        self.model: nn.Module | None = None
        self.data_report: dict[str, Any] = {}

    def train(self) -> TrainResult:
        """Prepare, train or go on training, save.

        Returns:
            Where the run ended. A run that had ended before returns at once with ``was_finished``.

        Raises:
            AligniteError: of the kind that says what is wrong; see docs/errors.md.
        """
        device = self._device()
        distributed.initialise(device)
        if self.args.num_threads:
            torch.set_num_threads(self.args.num_threads)
        first = distributed.rank() == 0
        with run_lock(self.run_dir) if first else nullcontext():
            distributed.barrier()
            if first:
                checkpoint.sweep(self.run_dir)
            saved = resume.find(self.run_dir, self.args)
            self._settle_date(saved)
            config = resume.saved_config(self.args, self.peft_config, self.model_folder, self.method)
            if saved is not None:
                resume.check(saved, config)
            else:
                check_own(self.run_dir, self.method)
            expected = saved.state["source"].get("fingerprint") if saved is not None else None
            train = self._prepared(self._train_dataset, "prepared", expected)
            held_out = self._prepared(self._eval_dataset, "prepared-eval")
            if train is None:
                raise UsageError("no training data is given", fix="give train_dataset, or data in the config")
            self.data_report = self.reported(train)
            model = self._load(device)
            if getattr(self.args, "packing", "none") == "none":  # else the loop tells, segment by segment
                check_length(model, max(int(data.report["longest"]) for data in (train, held_out) if data is not None))
            leaves = record.Record(self.run_dir, self.args, self.tokenizer, train, held_out, self.data_report)
            if saved is None:
                self._write_config()
                if self.answers:
                    leaves.samples("before", 0, model)
            loop = self._loop(model, train, held_out, config)
            if saved is not None and self.args.resume != "auto" and first and saved.folder.parent == self.run_dir:
                for name in checkpoint.set_aside(self.run_dir, saved.step):
                    log.warning("%s is of the run as it was; it is kept under this name and not gone on from", name)
            rng.seed(self.args.seed + distributed.rank())
            try:
                result = loop.run(saved)
                step = self._settle_weights(result)
                if self.answers and not result.was_finished:
                    leaves.samples("after", step, model)
                # Also when the run was finished: it may have been killed before it came here.
                self._write_config()
                if first:
                    self.save_model(self.run_dir)
            finally:
                leaves.report()
            distributed.barrier()
        return result

    def _loop(self, model: nn.Module, train: PreparedSet, held_out: PreparedSet | None, config: dict[str, Any]) -> Loop:
        evaluate = None
        if held_out is not None:
            evaluate = partial(self.evaluate_on, model, held_out)
            if self.args.metric_for_best_model is not None:
                # A name that does not exist is told before the first update.
                best = Best.of(self.args)
                self.check_metric(best, model, held_out, self.evaluate_on(model, held_out, limit=1))
        return Loop(
            models=self.roles(model, train),
            objective=self.objective,
            source=self.make_source(train),
            optimizer=Optimizer(self._trainable(model), self.args),
            config=self.args,
            weights=Weights(save=self._save_weights, load=self._load_weights),
            run_dir=self.run_dir,
            evaluate=evaluate,
            evaluated_on=held_out.fingerprint if held_out is not None else None,
            saved_config=config,
            callbacks=self.callbacks,
            display=self.display,
        )

    def _settle_weights(self, result: TrainResult) -> int:
        """Take the weights that the run ends with, the last or the best checkpoint's; says after which update."""
        step = result.step
        if self.args.load_best_model_at_end and result.best_step not in (None, step):
            try:
                best = checkpoint.read_checkpoint(self.run_dir / f"checkpoint-{result.best_step}")
                self._load_weights(best.folder)
                step = best.step
            except CheckpointError as error:
                log.warning("the best checkpoint cannot be taken, so the run ends with its last weights: %s", error)
        if self.model is not None:
            self.model.eval()
        return step

    def _write_config(self) -> None:
        if distributed.rank() == 0:
            write_file(self.run_dir / CONFIG_FILE, self.args.to_yaml())

    def evaluate(self) -> dict[str, float]:
        """The objective's mean over the evaluation data, with the model as it is now.

        Raises:
            UsageError: there is no evaluation data.
        """
        held_out = self._prepared(self._eval_dataset, "prepared-eval")
        if held_out is None:
            raise UsageError("no evaluation data is given", fix="give eval_dataset, or eval_data in the config")
        return self.evaluate_on(self._load(self._device()).eval(), held_out)

    def evaluate_on(self, model: nn.Module, held_out: PreparedSet, limit: int | None = None) -> dict[str, float]:
        """The objective's mean over a prepared set, or its first ``limit`` windows, as the config's options say."""
        return evaluate_loss(
            self.roles(model, held_out),
            held_out,
            self.objective,
            batch_size=self.args.per_device_eval_batch_size,
            max_tokens=micro_batch_tokens(self.args),
            chunk_size=self.args.logits_chunk_size,
            limit=limit,
            make_batch=partial(self.make_batch, held_out),
        )

    def reported(self, train: PreparedSet) -> dict[str, Any]:
        """What became of the training rows, as the run tells it."""
        return train.report

    def check_metric(self, best: Best, model: nn.Module, held_out: PreparedSet, found: Mapping[str, float]) -> None:
        """Whether evaluations give the metric that tells the best, from one of a part of the set.

        Raises:
            ConfigError: they do not.
        """
        if best.metric not in (None, *found):  # no row of the part may count for it
            found = self.evaluate_on(model, held_out)
        best.check(found)

    def roles(self, model: nn.Module, data: PreparedSet) -> dict[str, nn.Module | Role]:
        """The models by role that the objective's columns come from, for batches of a set."""
        return {"policy": model}

    def make_batch(self, data: PreparedSet, windows: NDArray[np.int64]) -> Any:
        """The batch of some windows, as the objective takes it."""
        return data.batch(windows)

    def groups(self, data: PreparedSet) -> NDArray[np.int64] | None:
        """Of each window, which of the groups it is in that must come in one update; None where there are none."""
        return None

    def save_model(self, folder: str | Path | None = None) -> None:
        """Write the adapter as a PEFT folder, or all weights as a transformers folder; default: the run's folder."""
        self._save_weights(Path(folder) if folder is not None else self.run_dir)

    def empty_model(self) -> nn.Module:
        """The model that would be trained, without its weights and without an adapter, on torch's meta device."""
        return empty_model(cast("Path", self.model_folder))

    def kept_parameters(self, model: nn.Module) -> int:
        """Parameters of a second model that is in memory while this one trains."""
        return 0

    def _device(self) -> torch.device:
        return resolve_device(self.args.device)

    def _settle_date(self, saved: checkpoint.Checkpoint | None) -> None:
        """Today, at the first run; the same day ever after."""
        if getattr(self.args, "template_date", "") is None:
            kept = saved.state["config"].get("template_date") if saved is not None else None
            year, month, day = resolve_date(kept)
            self.args.template_date = distributed.broadcast(f"{year:04}-{month:02}-{day:02}")  # type: ignore[attr-defined]

    def _prepared(self, data: Dataset | None, name: str, expected: str | None = None) -> PreparedSet | None:
        if data is None or isinstance(data, PreparedSet):
            if data is not None and expected is not None:
                check_unchanged(data.fingerprint, expected, data.folder)
            return data
        folder = self.run_dir / name
        if distributed.rank() == 0:
            prepared = self.prepare(data, self.tokenizer, folder, expected)
            distributed.barrier()
            return prepared
        distributed.barrier()
        return PreparedSet(folder)

    def _open(self, device: str) -> nn.Module:
        """The model as it is before training."""
        if self._given_model is not None:
            return self._given_model
        return load_model(cast("Path", self.model_folder), self.args.dtype, device)

    def _read_weights(self, folder: Path) -> nn.Module:
        """The model that :meth:`_save_weights` wrote, all weights."""
        return load_model(folder, self.args.dtype)

    def _load(self, device: torch.device) -> nn.Module:
        if self.model is not None:
            return self.model
        model = self._open(str(device))
        config = cast("Any", model).config
        rows = cast("Any", model).get_input_embeddings().weight.shape[0]
        self.tokenizer.check_fits(rows, config.to_dict())
        if self.peft_config is not None:
            apply_adapter(model, self.peft_config, seed=self.args.seed)
        else:
            for parameter in model.parameters():
                parameter.requires_grad_(True)
        if self.args.gradient_checkpointing:
            enable_gradient_checkpointing(model, checkpoint_context_fn(model) if self.peft_config else None)
        self.model = model.to(device)
        return self.model

    def _trainable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        if self.peft_config is not None:
            return adapter_parameters(model)
        return dict(model.named_parameters())

    def _save_weights(self, folder: Path) -> None:
        model = cast("nn.Module", self.model)
        if self.peft_config is not None:
            save_adapter(model, folder, config=self.peft_config, base_model_name_or_path=self.model_name)
        else:
            save_model(model, folder, self.tokenizer.folder)
        kind = "model" if self.peft_config is None else "adapter"
        record.card(folder, self.run_dir, kind, self.model_name)

    def _load_weights(self, folder: Path) -> None:
        model = cast("nn.Module", self.model)
        if self.peft_config is not None:
            fill_adapter(adapter_parameters(model), checkpoint.load_weights(folder), folder)
            return
        # transformers wrote them, under names that may not be those in memory, so transformers reads them.
        saved = self._read_weights(folder).state_dict()
        found = model.state_dict()
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in found.items()}:
            names = sorted(set(saved) ^ set(found))
            raise CheckpointError(
                "the checkpoint's weights are another model's",
                where=str(folder),
                why=", ".join(names[:4]),
                fix="resume with the model that the run began with, or choose another output_dir",
            )
        with torch.no_grad():
            for name, value in found.items():
                value.copy_(saved[name])


def check_watching(args: TrainingConfig, has_evaluation: bool) -> None:
    """Whether what the options watch can be seen.

    Raises:
        ConfigError: a best checkpoint or an early stop is asked for, and nothing is evaluated.
    """
    if args.watches_best and not has_evaluation:
        raise ConfigError(
            f"{args.metric_for_best_model} is to tell the best checkpoint, and there is no evaluation data",
            fix="give eval_data (or eval_dataset), and eval_steps",
        )


def check_apart(model: Path | None, run: Path) -> None:
    """Whether a run has a folder of its own.

    Raises:
        ConfigError: it would write over the model that it trains.
    """
    if model is not None and model.resolve() == run.resolve():
        raise ConfigError(
            "output_dir is the model's folder",
            where=str(run),
            why="the run would write over the model",
            fix="choose another output_dir",
        )


def check_own(folder: Path, method: str) -> None:
    """Whether a run that begins in this folder writes over weights that no run made, or that another method did.

    Raises:
        ResourceError: it would.
    """
    before = method_before(folder)
    if "" not in (before, method) and before != method:
        raise ResourceError(
            "output_dir holds a run of another method",
            where=str(folder),
            why=f"it was made by {before}, not by {method}",
            fix="choose a new folder",
        )
    theirs = [name for name in ("config.json", "adapter_config.json") if (folder / name).exists()]
    if theirs and not (folder / CONFIG_FILE).exists():
        raise ResourceError(
            "output_dir holds weights that are not of a run",
            where=str(folder),
            why=f"it holds {theirs[0]}",
            fix="choose a new folder",
        )


def micro_batch_tokens(args: TrainingConfig) -> int | None:
    """Tokens that go through the model at a time: as the config says, or as suits the device; None is no limit."""
    on_cpu = resolve_device(args.device).type == "cpu"
    return args.micro_batch_tokens or (CPU_MICRO_BATCH_TOKENS if on_cpu else None)


def lora_of(args: TrainingConfig) -> LoraConfig | None:
    """The adapter that the ``lora_*`` options ask for; None without ``use_peft``."""
    if not args.use_peft:
        return None
    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=args.lora_target_modules,
        use_rslora=args.use_rslora,
    )


def packed_source(prepared: PreparedSet, config: TrainingConfig, **more: Any) -> PackedSource:
    """The updates of a config over a prepared set; micro-batches as the config says, or as suits the device.

    ``more``: what else :class:`alignite.training.source.PackedSource` takes.
    """
    return PackedSource(
        prepared,
        batch_size=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        max_tokens=micro_batch_tokens(config),
        seed=config.seed,
        shuffle=config.shuffle,
        rank=distributed.rank(),
        world=distributed.world(),
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
        **more,
    )
