"""The configuration of a run: one dataclass a method, one field an option.

The command line, ``--config`` files and Python share these fields: a field's
name is the option's name, its metadata is the option's help, and values are
checked here, once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Self, dataclass_transform, get_args, get_origin, get_type_hints

from alignite.errors import ConfigError

# What users of TRL and transformers type, and what says the same here.
ELSEWHERE = {
    "bf16": "dtype: bfloat16",
    "fp16": "dtype: bfloat16 (float16 is not trained in)",
    "torch_dtype": "dtype",
    "use_cpu": "device: cpu",
    "no_cuda": "device: cpu",
    "report_to": "nothing: metrics.jsonl is always written",
    "resume_from_checkpoint": "resume",
    "overwrite_output_dir": "resume: never, in another output_dir",
    "response_length": "max_completion_length",
    "max_new_tokens": "max_completion_length",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "cutoff_len": "max_length",
    "packing_strategy": "packing",
    "padding_free": "nothing: batches are never padded",
    "completion_only_loss": "nothing: prompts are never scored",
    "assistant_only_loss": "nothing: only assistants are scored",
    "model_name_or_path": "model",
    "base_model": "model",
    "dataset_name": "data",
    "dataset": "data",
    "train_file": "data",
    "validation_file": "eval_data",
    "eval_strategy": "eval_steps",
    "evaluation_strategy": "eval_steps",
    "save_strategy": "save_steps",
    "logging_strategy": "logging_steps",
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs",
    "epochs": "num_train_epochs",
    "lr_scheduler": "lr_scheduler_type",
    "optim": "nothing: the optimizer is AdamW",
    "max_grad_norm_clip": "max_grad_norm",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "target_modules": "lora_target_modules",
    "data_seed": "seed",
    "dataloader_num_workers": "num_threads",
    "dataset_num_proc": "num_threads",
    "dataset_text_field": "completion_column, with apply_chat_template: false",
    "use_liger_kernel": "nothing: the head runs at scored positions only",
    "push_to_hub": "nothing: alignite does not use the network",
}


def option(default: Any, help: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its help text; a list default is copied for each instance."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, field_specifiers=(option, field))
def config_class(cls: type[Any]) -> Any:
    """A keyword-only dataclass that names unknown options, with a suggestion, and turns values into their types."""
    made = dataclass(kw_only=True)(cls)
    plain = made.__init__

    @functools.wraps(plain)
    def init(self: Any, **values: Any) -> None:
        types = get_type_hints(made)
        for name in values:
            if name not in types:
                raise unknown_option(name, [item.name for item in fields(made)])
        plain(self, **{name: coerce(name, types[name], value) for name, value in values.items()})

    made.__init__ = init
    return made


def unknown_option(name: str, known: list[str], where: str | None = None, prefix: str = "") -> ConfigError:
    """The error for an option that does not exist: what says the same here, or what is nearly called so."""
    plain = name.replace("-", "_")
    here = ELSEWHERE.get(plain, "")
    near = get_close_matches(plain, known, 1, 0.6)
    if plain in known:
        fix = f"options are written with underscores: {prefix}{plain}"
    elif here.startswith("nothing") or here.partition(":")[0] in known:
        fix = f"alignite calls this {here}"
    elif near:
        fix = f"did you mean {prefix}{near[0]}?"
    else:
        fix = "see the command's --help for the options there are"
    return ConfigError(f"unknown option {prefix}{name}", where=where, fix=fix)


def coerce(name: str, kind: Any, value: Any) -> Any:
    """A value as its field's type; text is read as the command line and YAML write it.

    Raises:
        ConfigError: it cannot be one.
    """
    if isinstance(kind, UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is list:
        items = value if isinstance(value, list | tuple) else [value]
        return [coerce(name, get_args(kind)[0], item) for item in items]
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    wrong = ConfigError(f"{name} is {value!r}", fix=f"it must be {words}")
    if kind is bool:
        text = str(value).lower()
        if text not in ("true", "false"):
            raise wrong
        return text == "true"
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        raise wrong
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if kind is float:
        return number
    if number != int(number) if abs(number) < 1e300 else True:
        raise wrong
    return int(value) if not isinstance(value, str) or value.lstrip("+-").isdecimal() else int(number)


class Options:
    """What every config class can do; subclasses are made by :func:`config_class`."""

    def validate(self) -> None:
        """Check values and conflicts.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        for item in fields(self):  # type: ignore[arg-type]
            choices, value = item.metadata["choices"], getattr(self, item.name)
            if choices is not None and value not in choices:
                raise ConfigError(f"{item.name} is {value!r}", fix=f"it is one of {', '.join(choices)}")

    def to_dict(self) -> dict[str, Any]:
        """Every option by name, in order."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def to_yaml(self) -> str:
        """The same as YAML, which :meth:`from_dict` takes back."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A config from names and values.

        Raises:
            ConfigError: an unknown name, or a value of another type.
        """
        return cls(**values)


def _check_bound(name: str, value: float, low: float, inclusive: bool) -> None:
    if not (low <= value < math.inf) or (value == low and not inclusive):
        raise ConfigError(f"{name} is {value}", fix=f"it must be {'at least' if inclusive else 'above'} {low}")


def _check_device(device: str) -> None:
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"device is {device!r}", fix="it must be auto, cpu, cuda or cuda:N")


@config_class
class TrainingConfig(Options):
    """Options that every training method shares; names are TRL's and transformers' where they exist."""

    model: str | None = option(default=None, help="model folder to train")
    data: list[str] = option(default=[], help="training files (JSONL, JSONL.gz) or globs")
    eval_data: list[str] = option(default=[], help="held-out files, evaluated every eval_steps and at the end")
    output_dir: str | None = option(default=None, help="the run's folder")

    num_train_epochs: float = option(default=3.0, help="passes over the data, unless max_steps is given")
    max_steps: int = option(default=-1, help="updates to make; -1 means num_train_epochs")
    per_device_train_batch_size: int = option(default=8, help="windows in a batch")
    per_device_eval_batch_size: int = option(default=8, help="windows in an evaluation batch")
    gradient_accumulation_steps: int = option(default=1, help="batches in an update")
    micro_batch_tokens: int = option(
        default=0,
        help="tokens in a forward pass: a batch with more is split, with the same result; 0 means 512 on a CPU, no "
        "limit on a GPU",
    )
    learning_rate: float = option(default=2e-5, help="peak learning rate")
    lr_scheduler_type: str = option(
        default="linear", help="learning-rate schedule", choices=("linear", "cosine", "constant")
    )
    warmup_steps: int = option(default=0, help="updates over which the rate rises from 0")
    warmup_ratio: float = option(default=0.0, help="the same as a share of all updates, when warmup_steps is 0")
    weight_decay: float = option(default=0.0, help="AdamW's decoupled weight decay (biases and norms are left out)")
    adam_beta1: float = option(default=0.9, help="AdamW's beta1")
    adam_beta2: float = option(default=0.999, help="AdamW's beta2")
    adam_epsilon: float = option(default=1e-8, help="AdamW's epsilon")
    max_grad_norm: float = option(default=1.0, help="clip the gradient's global norm to this; 0 means never")
    dtype: str = option(default="float32", help="the base model's dtype", choices=("float32", "bfloat16"))
    device: str = option(default="auto", help="auto, cpu, cuda or cuda:N")
    gradient_checkpointing: bool = option(default=False, help="recompute layers in the backward pass to save memory")
    logits_chunk_size: int = option(default=256, help="scored positions whose logits exist at one time")
    shuffle: bool = option(
        default=True, help="read windows in a random order, another one each epoch; false keeps the files' order"
    )
    seed: int = option(default=42, help="seed of the order, the adapters' start and dropout")
    num_threads: int = option(default=0, help="CPU threads for data and math; 0 means all cores")

    logging_steps: int = option(default=1, help="updates between two lines of metrics")
    eval_steps: int = option(default=0, help="updates between evaluations; 0 means only at the end")
    save_steps: int = option(default=500, help="updates between checkpoints; 0 means only at the end")
    save_total_limit: int = option(default=2, help="checkpoints to keep; 0 means all")
    resume: str = option(default="auto", help="auto, never, or a checkpoint folder")

    use_peft: bool = option(default=False, help="train a LoRA adapter instead of all weights")
    lora_r: int = option(default=8, help="LoRA rank")
    lora_alpha: float = option(default=8, help="LoRA alpha; the update is scaled by alpha / r")
    lora_dropout: float = option(default=0.0, help="dropout on the adapter's input")
    lora_target_modules: list[str] = option(
        default=["all-linear"], help="linears to adapt: names, suffixes, or all-linear"
    )
    use_rslora: bool = option(default=False, help="scale by alpha / sqrt(r) instead")

    def validate(self) -> None:
        super().validate()
        for names, low, inclusive in self._bounds():
            for name in names:
                value = getattr(self, name)
                _check_bound(name, value, low, inclusive)
        for name, top in (("adam_beta1", 1), ("adam_beta2", 1), ("lora_dropout", 1), ("warmup_ratio", 1)):
            if getattr(self, name) >= top:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be below {top}")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps is {self.max_steps}", fix="it must be above 0, or -1 for num_train_epochs")
        for name, most in (("seed", 2**63 - 1), ("num_threads", 4096)):
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be at most {most}")
        _check_device(self.device)

    def _bounds(self) -> list[tuple[tuple[str, ...], float, bool]]:
        counts = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        sizes = ("logging_steps", "logits_chunk_size", "lora_r")
        limits = ("micro_batch_tokens", "num_threads", "max_grad_norm")
        rest = ("warmup_steps", "save_steps", "eval_steps", "save_total_limit", "seed")
        decays = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "lora_dropout", "warmup_ratio")
        return [
            ((*counts, *sizes), 1, True),
            ((*rest, *limits, *decays), 0, True),
            (("num_train_epochs", "adam_epsilon", "lora_alpha"), 0, False),
        ]


@config_class
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning: options of the data path on top of :class:`TrainingConfig`."""

    max_length: int = option(
        default=1024, help="longest row in tokens; longer rows are cut at a turn border and counted"
    )
    packing: str = option(default="none", help="how rows share a window of max_length tokens", choices=("none", "bfd"))
    prompt_column: str | None = option(default=None, help="column that holds the prompt")
    completion_column: str | None = option(default=None, help="column that holds the completion")
    apply_chat_template: bool = option(
        default=True, help="render rows with the model's chat template; false leaves text raw"
    )
    template_date: str | None = option(
        default=None, help="date that templates see as today, YYYY-MM-DD; default: the first run's day"
    )
    on_bad_row: str = option(default="error", help="what a malformed row does", choices=("error", "skip"))

    def validate(self) -> None:
        super().validate()
        _check_bound("max_length", self.max_length, 2, True)
        if (self.prompt_column is None) != (self.completion_column is None):
            given = "prompt_column" if self.prompt_column is not None else "completion_column"
            raise ConfigError(f"{given} is given alone", fix="give prompt_column and completion_column")


@config_class
class GenerateConfig(Options):
    """Options of ``alignite generate``."""

    model: str | None = option(default=None, help="model folder")
    adapter: str | None = option(default=None, help="PEFT folder of an adapter of this model")
    prompt: list[str] = option(default=[], help="what to ask; several are asked one by one")
    prompt_file: str | None = option(default=None, help="file with a prompt a line; - is standard input")
    system: str | None = option(default=None, help="system message")
    raw: bool = option(default=False, help="send prompts as they are, without the chat template")
    max_new_tokens: int = option(default=256, help="longest answer in tokens")
    temperature: float = option(default=0.0, help="0 takes the likeliest token each time")
    top_p: float = option(default=1.0, help="sample from the likeliest tokens of this total probability")
    top_k: int = option(default=0, help="sample from this many likeliest tokens; 0 means all")
    repetition_penalty: float = option(default=1.0, help="above 1 makes repeated tokens less likely")
    seed: int = option(default=0, help="seed of the sampling")
    batch_size: int = option(default=8, help="prompts answered together")
    dtype: str = option(default="float32", help="dtype of the model", choices=("float32", "bfloat16"))
    device: str = option(default="auto", help="auto, cpu, cuda or cuda:N")

    def validate(self) -> None:
        super().validate()
        for name in ("max_new_tokens", "batch_size"):
            _check_bound(name, getattr(self, name), 1, True)
        for name in ("temperature", "top_k", "seed"):
            _check_bound(name, getattr(self, name), 0, True)
        for name in ("top_p", "repetition_penalty"):
            _check_bound(name, getattr(self, name), 0, False)
        if self.top_p > 1:
            raise ConfigError(f"top_p is {self.top_p}", fix="it must be at most 1")
        _check_device(self.device)


@config_class
class MergeConfig(Options):
    """Options of ``alignite merge``."""

    model: str | None = option(default=None, help="folder of the base model")
    adapter: str | None = option(default=None, help="PEFT folder of the adapter")
    output_dir: str | None = option(default=None, help="folder of the merged model")
    dtype: str = option(default="float32", help="dtype of the merged model", choices=("float32", "bfloat16"))


@config_class
class ImportGgufConfig(Options):
    """Options of ``alignite import-gguf``."""

    gguf: str | None = option(default=None, help="GGUF file of a Llama-family model")
    output_dir: str | None = option(default=None, help="folder to write")
    dtype: str = option(default="float32", help="dtype of the weights", choices=("float32", "bfloat16", "float16"))


@config_class
class DoctorConfig(Options):
    """``alignite doctor`` has no options of its own."""
