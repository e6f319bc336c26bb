"""Learning from comparisons, rankings and labelled replies: one trainer for all objectives over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from alignite.config.preference import PreferenceConfig, ReferenceOptions
from alignite.data.hub import resolve_model
from alignite.data.partners import with_partners
from alignite.data.prepare import prepare
from alignite.data.prepared import Origins, PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import ConfigError, DataError, UsageError
from alignite.models.columns import AGAINST
from alignite.models.loading import load_model
from alignite.models.memory import count_parameters, empty_model
from alignite.objectives.odd_rows import LABELLED_BAD, MARGIN, NOTHING, USUAL
from alignite.objectives.registry import METHODS, method_of, objective_of
from alignite.peft.seat import AdapterModule
from alignite.trainers.base import Dataset, Trainer, micro_batch_tokens, packed_source
from alignite.trainers.made_rows import made_file, make_rows, unmade, unread
from alignite.trainers.reference import ReferenceLogProbs, adapter_off, freeze, frozen_copy, mix_into
from alignite.training import distributed
from alignite.training.loop import Loop
from alignite.training.source import PackedSource
from alignite.types import Callback, Objective, PrepassObjective, ReplyRole, Role, RowMaker

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.types import FeedbackBatch, SftBatch

MOVED = "reference.tensors"
"""The file of a checkpoint that holds a reference which follows the policy, in safetensors' format."""

_PLACES = 5

PAIRED = ("preference", "ranking")
"""Records that most objectives take: a ranking is all its pairs."""


class PreferenceTrainer(Trainer):
    """Train a causal LM on preferences; the facades such as :class:`alignite.DPOTrainer` only choose the objective.

    Args:
        model: a transformers folder, or a loaded model.
        ref_model: the reference of objectives that have one: a folder or a loaded model. Default: the model as it is
            before training, which costs no memory with an adapter and a copy of the weights without one.
        args: the config of a method, such as :class:`alignite.DPOConfig`; or, with an objective, a
            :class:`alignite.config.PreferenceConfig`.
        train_dataset, eval_dataset, processing_class, peft_config, callbacks: as in :class:`alignite.SFTTrainer`.
        objective: what is minimised; default: the objective of the method that ``args`` is the config of, with its
            options. ``kinds``: the records that it takes; default: those of that method, or pairs and rankings.

    Raises:
        ConfigError, UsageError: an option is out of range, or something is not given.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        ref_model: str | Path | nn.Module | None = None,
        args: PreferenceConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: ChatTokenizer | str | Path | None = None,
        peft_config: Any = None,
        callbacks: Sequence[Callback] = (),
        *,
        objective: Objective | None = None,
        kinds: Sequence[str] | None = None,
    ) -> None:
        config = args if args is not None else PreferenceConfig()
        if objective is None:
            self.method = self.method or method_of(config)
            objective = objective_of(self.method, config)
            kinds = kinds if kinds is not None else METHODS[self.method].kinds
        records = kinds if kinds is not None else PAIRED

        def prepare_records(data: Any, tokenizer: ChatTokenizer, folder: Path, expected: str | None) -> PreparedSet:
            options, taken = config, tuple(records)
            if isinstance(objective, RowMaker):
                taken = (objective.makes,)
                if objective.takes:
                    data, options = make_rows(data, objective, config, made_file(folder))
            return prepare(data, tokenizer, options, folder, kinds=taken, expected=expected)  # type: ignore[arg-type]

        super().__init__(
            model,
            config,
            train_dataset,
            eval_dataset,
            processing_class,
            peft_config,
            callbacks,
            objective=objective,
            prepare=prepare_records,
            source=self._source,
        )
        self._options = config if isinstance(config, ReferenceOptions) else ReferenceOptions()
        columns = objective.columns
        self._partnered = isinstance(objective, PrepassObjective) and getattr(objective, "needs_partners", False)
        if isinstance(objective, PrepassObjective):
            columns = columns | objective.prepass_columns
        self._conversations = isinstance(objective, RowMaker) and objective.makes == "conversation"
        compares = columns & AGAINST
        self._needs_reference = bool(compares) or any(name.startswith("reference.") for name in columns)
        given = ref_model if ref_model is not None else self._options.ref_model
        if given is not None and not self._needs_reference:
            raise ConfigError(
                f"a ref_model is given, and {type(objective).__name__} has no reference", fix="leave it out"
            )
        for name in ("precompute_ref_log_probs", "sync_ref_model"):
            if getattr(self._options, name) and not self._needs_reference:
                raise ConfigError(
                    f"{name} is given, and {type(objective).__name__} with these options has no reference",
                    fix="leave it out",
                )
        if self._options.precompute_ref_log_probs and compares:
            raise ConfigError(
                f"precompute_ref_log_probs is given, and {type(objective).__name__} compares whole distributions",
                why="what is computed before is the log-probability of single tokens",
                fix="leave it out, or take the estimate k3",
            )
        if self._options.sync_ref_model and self.peft_config is not None:
            raise ConfigError(
                "sync_ref_model is given with an adapter",
                why="a reference follows the policy weight by weight, and an adapter is no weight of the reference",
                fix="train all weights, or leave sync_ref_model out",
            )
        if isinstance(given, str | Path) and isinstance(config, ReferenceOptions):
            config.ref_model = str(given)  # what a resumed run is compared with
        self._given_reference = given
        # Numbers that are computed before training need no second copy of the policy: it is its own reference then.
        # Partners are not in the file: a pre-pass over them still asks the model.
        self._precomputes = self._options.precompute_ref_log_probs
        self._keeps_reference = self._needs_reference and (self._partnered or not self._precomputes)
        self._reference: nn.Module | Role | None = None
        self._begun = False
        self._computed: dict[str, ReferenceLogProbs] = {}
        self._updates = 0

    def _load(self, device: Any) -> nn.Module:
        fresh = self.model is None
        model = super()._load(device)
        if fresh and self.args.disable_dropout:  # type: ignore[attr-defined]
            disable_dropout(model)
        if self._keeps_reference and self._reference is None:
            self._reference = self._load_reference(model)
        return model

    def _loop(self, model: nn.Module, train: PreparedSet, held_out: PreparedSet | None, config: dict[str, Any]) -> Loop:
        if self._precomputes:
            self._compute(model, *(data for data in (train, held_out) if data is not None))
        self._begun = True
        return super()._loop(model, train, held_out, config)

    def kept_parameters(self, model: nn.Module) -> int:
        if not self._keeps_reference or (self._given_reference is None and self.peft_config is not None):
            return 0
        if isinstance(self._given_reference, str | Path):
            return count_parameters(empty_model(resolve_model(self._given_reference)))
        return count_parameters(model)

    def _load_reference(self, policy: nn.Module) -> nn.Module | Role:
        given = self._given_reference
        if isinstance(given, nn.Module):
            return self._fitting(freeze(given.to(next(policy.parameters()).device)))
        if given is not None:
            folder = resolve_model(given)
            if (folder / "tokenizer.json").is_file() and not self.tokenizer.same_ids(ChatTokenizer.from_folder(folder)):
                raise UsageError(
                    "the reference has another tokenizer than the policy",
                    where=str(folder),
                    fix="give a reference that knows the same tokens by the same ids",
                )
            device = str(next(policy.parameters()).device)
            return self._fitting(freeze(load_model(folder, self.args.dtype, device)))
        return adapter_off(policy) if self.peft_config is not None else frozen_copy(policy)

    def _fitting(self, reference: nn.Module) -> nn.Module:
        known: Any = reference
        self.tokenizer.check_fits(known.get_input_embeddings().weight.shape[0], {})
        return reference

    def reported(self, train: PreparedSet) -> dict[str, Any]:
        """The report of the set, which says of odd rows what this method makes of them.

        Raises:
            DataError: there are no other rows than those of which it learns nothing.
        """
        report = train.report
        meant: Mapping[str, str] = getattr(self.objective, "odd_rows", {})
        idle = {reason: entry for reason, entry in report["noticed"].items() if meant.get(reason) == NOTHING}
        teaching = report["used"] - sum(entry["count"] for entry in idle.values())
        if report["used"] and teaching <= 0:
            reasons = (
                f"{entry['count']} rows: {reason} (first: {entry['examples'][0]})" for reason, entry in idle.items()
            )
            raise DataError(
                f"{type(self.objective).__name__} learns nothing from any row",
                where=str(train.folder),
                why="; ".join(reasons),
                fix="give rows of which one reply is better than another, or steps that are right or wrong",
            )
        noticed = report["noticed"] | _aside(train, meant)
        noticed = {reason: entry for reason, entry in noticed.items() if meant.get(reason) != USUAL}
        said = {reason: f"{reason}: {meant[reason]}" if reason in meant else reason for reason in noticed}
        makes = isinstance(self.objective, RowMaker) and self.objective.takes
        unseen = unread(made_file(train.folder)) if makes else {}
        return report | {
            "noticed": {said[reason]: entry for reason, entry in noticed.items()} | unseen,
            "unmade": unmade(made_file(train.folder)) if makes else {},
            "teaching": teaching,
        }

    def roles(self, model: nn.Module, data: PreparedSet) -> dict[str, nn.Module | Role]:
        if self._precomputes:
            self._compute(model, data)
        roles: dict[str, nn.Module | Role] = {"policy": model}
        return roles | {"reference": self._reference} if self._reference is not None else roles

    def _compute(self, model: nn.Module, *sets: PreparedSet) -> None:
        """The reference's numbers for these sets, where they are not known yet."""
        missing = [data for data in sets if data.fingerprint not in self._computed]
        if not missing:
            return
        reference = self._reference
        if reference is None and (self._given_reference is not None or self.peft_config is not None):
            reference = self._load_reference(model)
        elif reference is None and not self._begun:
            reference = model
        elif reference is None:
            raise UsageError(
                "the reference's log-probabilities of this data were not computed before training",
                why="the policy was its own reference, and it is another model now",
                fix="give the data as eval_dataset when training, or give a ref_model",
            )
        for data in missing:
            if distributed.rank() == 0:
                self._computed[data.fingerprint] = self._log_probs(reference, data)
            distributed.barrier()
            if distributed.rank() != 0:  # the file is there now
                self._computed[data.fingerprint] = self._log_probs(reference, data)

    def _log_probs(self, reference: nn.Module | Role, data: PreparedSet) -> ReferenceLogProbs:
        return ReferenceLogProbs.compute(
            reference,
            data,
            data.folder.with_name(f"{data.folder.name}-reference"),
            batch_size=self._options.precompute_ref_batch_size,
            max_tokens=micro_batch_tokens(self.args),
            chunk_size=self.args.logits_chunk_size,
        )

    def make_batch(
        self, data: PreparedSet, windows: NDArray[np.int64], partners: NDArray[np.int64] | None = None
    ) -> FeedbackBatch | SftBatch:
        if self._conversations:
            return data.batch(windows)
        known = self._computed.get(data.fingerprint)
        batch = known.batch(data, windows) if known is not None else data.feedback_batch(windows)
        if not self._partnered:
            return batch
        # Without an update, and in one of a single record, the next of the set: never, if it can be, the record's own.
        following = (windows + 1) % len(data)
        others = following if partners is None else np.where(partners == windows, following, partners)
        return with_partners(batch, data.feedback_batch(others), self.args.max_length)  # type: ignore[attr-defined]

    def _source(self, prepared: PreparedSet) -> PackedSource:
        return packed_source(
            prepared,
            self.args,
            make_batch=lambda windows, partners: self.make_batch(prepared, windows, partners),
            after=self._after_update,
            groups=self.groups(prepared),
        )

    def groups(self, data: PreparedSet) -> NDArray[np.int64] | None:
        numbers = getattr(self.objective, "groups", None)
        if numbers is None:
            return None
        origins = data.origins(np.arange(len(data)))
        _, first = np.unique(origins.records, return_index=True)
        found: NDArray[np.int64] = numbers(origins.lines[first])
        return found

    def _after_update(self, metrics: Mapping[str, float]) -> None:
        self._updates += 1
        options = self._options
        if not options.sync_ref_model or self._updates % options.ref_model_sync_steps:
            return
        if not isinstance(self._reference, nn.Module) or self.model is None:
            raise UsageError("there is no reference model to move", fix="leave sync_ref_model out")
        mix_into(self._reference, self.model, options.ref_model_mixup_alpha)

    def _save_weights(self, folder: Path) -> None:
        super()._save_weights(folder)
        if self._options.sync_ref_model and folder != self.run_dir and isinstance(self._reference, nn.Module):
            # Not a name that a loader of models would take for the policy's.
            tensors = {name: value.contiguous() for name, value in self._reference.named_parameters()}
            save_file(tensors, folder / MOVED, metadata={"updates": str(self._updates)})

    def _load_weights(self, folder: Path) -> None:
        super()._load_weights(folder)
        if self._options.sync_ref_model and isinstance(self._reference, nn.Module):
            with safe_open(folder / MOVED, framework="pt") as saved, torch.no_grad():
                self._updates = int(saved.metadata()["updates"])
                for name, value in self._reference.named_parameters():
                    value.copy_(saved.get_tensor(name))


_ASIDE: Mapping[str, Callable[[Origins], NDArray[np.bool_]]] = {
    LABELLED_BAD: lambda found: (found.roles == ReplyRole.REPLY) & (found.scores == 0),
    MARGIN: lambda found: (found.roles == ReplyRole.CHOSEN) & ~np.isnan(found.scores) & (found.scores != 0),
}
"""What the report of a set does not count, as not every method minds: which segments say so."""


def _aside(train: PreparedSet, meant: Mapping[str, str]) -> dict[str, Any]:
    wanted = {reason: which for reason, which in _ASIDE.items() if reason in meant}
    if not wanted:
        return {}
    origins = train.origins(np.arange(len(train)))
    found = {reason: np.flatnonzero(which(origins)) for reason, which in wanted.items()}
    return {
        reason: {"count": len(where), "examples": [origins.place(segment) for segment in where[:_PLACES].tolist()]}
        for reason, where in found.items()
        if len(where)
    }


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model's own to 0, also those that attention reads from its config."""
    for module in model.modules():
        if isinstance(module, AdapterModule):
            continue  # lora_dropout is an option of its own
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
