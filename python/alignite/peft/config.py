"""LoRA's configuration, with PEFT's field names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from alignite.errors import AdapterError

# What PEFT writes for the features of its LoRA that alignite does not have. The values mean "off"; another value
# would change the model, so it is refused.
_OFF: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "kasa_config": None,
    "layer_replication": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_ga_config": None,
    "megatron_config": None,
    "monteclora_config": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "velora_config": None,
}
# Fields that change nothing here whatever they hold.
_NEUTRAL: dict[str, Any] = {
    "auto_mapping": None,
    "inference_mode": False,
    "megatron_core": "megatron.core",
    "peft_version": None,
    "qalora_group_size": 16,
    "revision": None,
}


@dataclass
class LoraConfig:
    """Which linears get a LoRA update ``scale * B A``, and of what shape (arXiv 2106.09685, section 4.1).

    Args:
        r: rank. ``lora_alpha``: the update is scaled by alpha / r, or alpha / sqrt(r) with ``use_rslora``
            (arXiv 2312.03732).
        target_modules: ``"all-linear"`` (every linear but the vocabulary head), a regular expression that must
            match a module's whole name, or a list of names or name endings.
        lora_dropout: dropout on the adapter's input while training.
        init_lora_weights: True: A uniform as PEFT's, B zero; "gaussian": A normal with deviation 1 / r, B zero;
            False: both uniform, so that the adapter starts with an effect.
        exclude_modules: names that ``target_modules`` would match and that stay as they are.
        layers_to_transform: indices of layers to adapt; others stay as they are.
        rank_pattern, alpha_pattern: regular expressions of names with a rank or alpha of their own.
        modules_to_save: names of linears that are trained whole, each as the adapter's own copy; names that the model
            does not have are passed over, as PEFT does.
        bias: only "none".
        fan_in_fan_out: accepted for PEFT's sake; the module's type decides.

    Raises:
        AdapterError: a value out of range.
    """

    r: int = 8
    lora_alpha: float = 8
    target_modules: str | list[str] = "all-linear"
    lora_dropout: float = 0.0
    use_rslora: bool = False
    init_lora_weights: bool | str = True
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    bias: str = "none"
    fan_in_fan_out: bool = False
    task_type: str | None = "CAUSAL_LM"
    base_model_name_or_path: str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        ranks = {"r": self.r, **{f"rank_pattern[{key!r}]": value for key, value in self.rank_pattern.items()}}
        for name, rank in ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise AdapterError(f"{name} is {rank!r}", fix="it must be a whole number of at least 1")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise AdapterError(f"lora_dropout is {self.lora_dropout!r}", fix="it must be at least 0 and below 1")
        if self.bias != "none":
            raise AdapterError(f"bias={self.bias!r} is not supported", fix="use bias='none'")
        if self.init_lora_weights not in (True, False, "gaussian"):
            raise AdapterError(
                f"init_lora_weights={self.init_lora_weights!r} is not supported", fix="use True, False or 'gaussian'"
            )
        if isinstance(self.target_modules, set | tuple):
            self.target_modules = sorted(self.target_modules)
        if isinstance(self.exclude_modules, set | tuple):
            self.exclude_modules = sorted(self.exclude_modules)
        if isinstance(self.modules_to_save, set | tuple):
            self.modules_to_save = sorted(self.modules_to_save)
        if self.modules_to_save is not None and not isinstance(self.modules_to_save, list):
            raise AdapterError(
                f"modules_to_save is {self.modules_to_save!r}", fix='give a list of names, such as ["score"]'
            )
        if not self.target_modules:
            raise AdapterError("target_modules is empty", fix="name the linears to adapt, or use 'all-linear'")
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(pattern)
            except re.error as error:
                raise AdapterError(
                    f"pattern {pattern!r} is not a regular expression", why=str(error), fix="name modules or escape it"
                ) from error

    def for_scores(self) -> LoraConfig:
        """The same for a model with a score head, which PEFT calls SEQ_CLS: ``score`` is trained whole."""
        saved = [*(self.modules_to_save or ()), "score"]
        return replace(self, task_type="SEQ_CLS", modules_to_save=list(dict.fromkeys(saved)))

    @property
    def wants_all_linear(self) -> bool:
        return self.target_modules == "all-linear" or self.target_modules == ["all-linear"]

    def rank_of(self, name: str) -> int:
        return int(_by_pattern(self.rank_pattern, name, self.r))

    def scale_of(self, name: str) -> float:
        alpha = float(_by_pattern(self.alpha_pattern, name, self.lora_alpha))
        rank = self.rank_of(name)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    @classmethod
    def from_any(cls, config: Any) -> LoraConfig:
        """This class's object from one of its own, from PEFT's object, or from a mapping of PEFT's fields.

        Raises:
            AdapterError: a feature of PEFT's that alignite does not have is switched on.
        """
        if isinstance(config, cls):
            return config
        if isinstance(config, Mapping):
            return cls.from_mapping(config)
        if hasattr(config, "to_dict"):
            return cls.from_mapping(config.to_dict())
        raise AdapterError(
            f"peft_config is a {type(config).__name__}", fix="give alignite.LoraConfig or PEFT's LoraConfig"
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str | None = None) -> LoraConfig:
        """From the fields of a PEFT adapter_config.json."""
        kind = getattr(values.get("peft_type", "LORA"), "value", values.get("peft_type", "LORA"))
        if kind != "LORA":
            raise AdapterError(f"adapters of type {kind} are not supported", where=where, fix="only LORA is read")
        names = {item.name for item in fields(cls)}
        taken: dict[str, Any] = {}
        for key, value in values.items():
            if key in names:
                taken[key] = getattr(value, "value", value) if key == "task_type" else value
            elif key in _OFF:
                if value not in (_OFF[key], None, False, {}, []):
                    raise AdapterError(f"{key}={value!r} is not supported", where=where, fix=f"leave {key} unset")
            elif (
                key not in _NEUTRAL
                and key not in ("peft_type", "runtime_config")
                and value not in (None, False, {}, [])
            ):
                near = get_close_matches(key, names, 1)
                raise AdapterError(
                    f"unknown field {key}={value!r}",
                    where=where,
                    why="it may change the adapter in a way that alignite would miss",
                    fix=f"did you mean {near[0]}?" if near else "remove it if the adapter does not need it",
                )
        taken["bias"] = taken.get("bias") or "none"
        for key in ("rank_pattern", "alpha_pattern"):
            taken[key] = taken.get(key) or {}
        try:
            return cls(**taken)
        except AdapterError as error:
            error.where = error.where or where
            raise
        except TypeError as error:
            raise AdapterError(
                "a field has a value of the wrong type", where=where, why=str(error), fix="write it as PEFT does"
            ) from error

    def to_mapping(self) -> dict[str, Any]:
        """The fields that PEFT writes to adapter_config.json."""
        return {**_OFF, **_NEUTRAL, **asdict(self), "peft_type": "LORA"}


def _by_pattern(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default
