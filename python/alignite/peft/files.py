"""PEFT's adapter folders, both ways: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from alignite.data.hub import resolve_model
from alignite.data.hub_access import HubName
from alignite.errors import AdapterError
from alignite.files import write_file
from alignite.peft.config import LoraConfig
from alignite.peft.lora import LoraAdapter, SavedLinear, saved_names, seat_copy, seat_lora, target_names
from alignite.peft.seat import Seat, adapter_parameters, leave_seat, seats, set_active, state_of, weight_of

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_AGAIN = "get the adapter's files again"


def save_adapter(
    model: nn.Module,
    folder: str | Path,
    name: str = "default",
    *,
    config: LoraConfig | None = None,
    base_model_name_or_path: str | None = None,
) -> None:
    """Write the adapter as PEFT does: "default" into ``folder`` itself, another name into ``folder/name``.

    Args:
        config: the config it was made from; without it one is read off the adapter, every rank and alpha named.
        base_model_name_or_path: the base's folder, or its hub id, whose revision goes into the field of that name.

    Raises:
        AdapterError: the model has no such adapter. ResourceError: the folder cannot be written.
    """
    target = Path(folder) if name == "default" else Path(folder) / name
    fields = (config or _config_of(model, name)).to_mapping()
    low_rank, saved = _by_kind(model, name)
    fields["target_modules"] = _shortest_names(model, list(low_rank))
    if saved and not fields.get("modules_to_save"):
        fields["modules_to_save"] = saved
    fields["inference_mode"] = True
    if base_model_name_or_path is not None:
        hub = None if Path(base_model_name_or_path).exists() else HubName.parse(base_model_name_or_path)
        fields["base_model_name_or_path"] = hub.repo if hub is not None else base_model_name_or_path
        fields["revision"] = hub.revision if hub is not None else None
    tensors = {
        f"{_PREFIX}{key}": parameter.detach().cpu().contiguous()
        for key, parameter in adapter_parameters(model, name).items()
    }
    write_file(target / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    write_file(target / CONFIG_FILE, json.dumps(fields, indent=2, sort_keys=True))


def _by_kind(model: nn.Module, name: str) -> tuple[dict[str, LoraAdapter], list[str]]:
    """The LoRA updates of an adapter by their linears' names, and the names of the linears that it has copies of."""
    adapters = {path: cast("Seat", module).adapters[name] for path, module in seats(model, name).items()}
    saved = [path for path, adapter in adapters.items() if isinstance(adapter, SavedLinear)]
    return {path: cast("LoraAdapter", a) for path, a in adapters.items() if path not in saved}, saved


def _config_of(model: nn.Module, name: str) -> LoraConfig:
    adapters, saved = _by_kind(model, name)
    first = next(iter(adapters.values()))
    rank = first.lora_A.weight.shape[0]
    ranks = {path: adapter.lora_A.weight.shape[0] for path, adapter in adapters.items()}
    alphas = {path: adapter.scale * ranks[path] for path, adapter in adapters.items()}
    alpha = next(iter(alphas.values()))
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=first.dropout,
        rank_pattern={path: value for path, value in ranks.items() if value != rank},
        alpha_pattern={path: value for path, value in alphas.items() if value != alpha},
        modules_to_save=saved or None,
        task_type="SEQ_CLS" if "score" in saved else "CAUSAL_LM",
    )


def _shortest_names(model: nn.Module, paths: list[str]) -> list[str]:
    """The last parts of the names where they select the same modules, else the whole names."""
    short = sorted({path.rsplit(".", 1)[-1] for path in paths})
    try:
        same = target_names(model, LoraConfig(target_modules=short)) == paths
    except AdapterError:
        same = False
    return short if same else sorted(paths)


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default", *, trainable: bool = False) -> LoraConfig:
    """Seat the adapter of a PEFT folder on the model and make it active.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors, itself or in ``folder/name``; or a hub id
            ``org/name[@revision]``.
        trainable: freeze the base and let the adapter's parameters take gradients.

    Raises:
        AdapterError: a file is missing or damaged, or its tensors are not exactly those that the config and the
            model ask for; every missing, unexpected and misshapen key is named, and the model is as it was.
    """
    path = resolve_model(folder, "adapter")
    if not (path / CONFIG_FILE).is_file() and (path / name / CONFIG_FILE).is_file():
        path = path / name
    config = LoraConfig.from_mapping(read_config(path), where=str(path / CONFIG_FILE))
    tensors = _read_weights(path)
    before = state_of(model).active
    grads = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    seated: list[str] = []
    try:
        for target in target_names(model, config):
            adapter = seat_lora(model, target, config, name)
            adapter.to(weight_of(model.get_submodule(target)).device)
            seated.append(target)
        for target in saved_names(model, config):
            seat_copy(model, target, name)
            seated.append(target)
        fill_adapter(adapter_parameters(model, name), tensors, path / WEIGHTS_FILE)
    except AdapterError as error:
        for target in seated:
            leave_seat(model.get_submodule(target), name)
        set_active(model, before)
        if error.where is None:
            error.where = str(path)
        raise
    for parameter, needed in grads:
        parameter.requires_grad_(needed and not trainable)
    for parameter in adapter_parameters(model, name).values():
        parameter.requires_grad_(trainable)
    set_active(model, (name,))
    return config


def read_config(path: Path) -> dict[str, Any]:
    """The fields of an adapter's folder.

    Raises:
        AdapterError: adapter_config.json is missing or damaged.
    """
    file = path / CONFIG_FILE
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise AdapterError(f"no {CONFIG_FILE}", where=str(path), fix="give the folder of a PEFT adapter") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{CONFIG_FILE} cannot be read", where=str(file), why=str(error), fix=_AGAIN) from error
    if not isinstance(values, dict):
        raise AdapterError(f"{CONFIG_FILE} is not a JSON object", where=str(file), fix=_AGAIN)
    return values


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    file = path / WEIGHTS_FILE
    if not file.is_file():
        pickled = (path / "adapter_model.bin").is_file()
        raise AdapterError(
            f"no {WEIGHTS_FILE}",
            where=str(path),
            why="it holds adapter_model.bin, which can run code when loaded" if pickled else None,
            fix="load it with PEFT and save it again, which writes safetensors"
            if pickled
            else "give the folder of a PEFT adapter",
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterError(f"{WEIGHTS_FILE} is damaged", where=str(file), why=str(error), fix=_AGAIN) from error


def fill_adapter(parameters: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Copy a PEFT file's tensors into parameters named as :func:`adapter_parameters` names them, strictly."""
    wanted = {f"{_PREFIX}{key}": parameter for key, parameter in parameters.items()}
    faults = []
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    if missing:
        faults.append(f"missing: {_first(missing, ', ')}")
    if unexpected:
        faults.append(f"unexpected: {_first(unexpected, ', ')}")
    misfits = []
    for key in sorted(wanted.keys() & tensors.keys()):
        if tensors[key].shape != wanted[key].shape:
            misfits.append(f"{key} is {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}")
        elif not tensors[key].is_floating_point():
            misfits.append(f"{key} is {tensors[key].dtype}, not floating point")
    if misfits:
        faults.append(_first(misfits, "; "))
    if faults:
        raise AdapterError(
            "the adapter does not fit the model",
            where=str(file),
            why="; ".join(faults),
            fix="use the base model that the adapter was made for",
        )
    with torch.no_grad():
        for key, parameter in wanted.items():
            parameter.copy_(tensors[key])


def _first(names: list[str], between: str) -> str:
    """The first four, and how many more there are: a model has hundreds of tensors."""
    return between.join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
