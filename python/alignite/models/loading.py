"""Causal LMs from and to transformers folders: local, safetensors only, nothing silent."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from alignite.data.hub import resolve_model
from alignite.errors import ConfigError, ModelError, ResourceError
from alignite.models import attention
from alignite.models.linear import use_fast_linears
from alignite.models.norm import use_fast_norms

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "generation_config.json",
)


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N`` as a device that is there.

    Without a number a rank that torchrun started takes the GPU of its LOCAL_RANK.

    Raises:
        ConfigError: another name. ResourceError: no such device.
    """
    has_cuda = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_cuda else "cpu") if name == "auto" else name)
        if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}", fix="it must be auto, cpu, cuda or cuda:N") from error
    count = torch.cuda.device_count() if has_cuda else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        seen = f"torch sees {count} CUDA devices"
        raise ResourceError(
            f"there is no device {name!r}",
            why=seen if torch.version.cuda else f"{seen}; this build of torch is for the CPU only",
            fix="use device: cpu or auto; `alignite doctor` shows what is there",
        )
    return device


def load_model(folder: str | Path, dtype: str = "float32", device: str = "cpu") -> nn.Module:
    """Load a causal LM with its attention routed through alignite, in evaluation mode.

    Args:
        folder: a transformers folder with config.json and safetensors weights, or its hub id ``org/name[@revision]``.
        dtype: float32, bfloat16, float16 or float64.
        device: where the weights go.

    Raises:
        ModelError: no such folder, weights that are missing, unexpected, of another shape or not finite, or a
            model that needs code from its folder.
    """
    path = checked_folder(folder)
    model, info = read_weights(path, dtype)
    check_weights(model, info, path)
    return ready_model(model, device)


def read_weights(path: Path, dtype: str) -> tuple[Any, dict[str, Any]]:
    """The causal LM of a checked folder, and transformers' lists of keys that do not fit it.

    Raises:
        ModelError: transformers cannot make the model.
    """
    from transformers import AutoModelForCausalLM

    attention.register()
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=DTYPES[dtype],
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        first = str(error).strip().splitlines()
        raise ModelError(
            "the model cannot be loaded",
            where=str(path),
            why=f"{type(error).__name__}: {first[0] if first else 'no message'}",
            fix="check config.json and the .safetensors files; `alignite import-gguf` makes a folder from a GGUF file",
        ) from error
    return model, info


def ready_model(model: Any, device: str) -> nn.Module:
    """The model on its device, in evaluation mode, with our attention, linears and norms."""
    if attention.refusal(model) is None:
        model.set_attn_implementation(attention.NAME)
    use_fast_linears(model)
    use_fast_norms(model)
    return cast("nn.Module", model.to(device).eval())


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, and no report on weights that our own errors would repeat; as before afterwards."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def checked_folder(folder: str | Path) -> Path:
    """The folder, if it holds a model that may be loaded: config.json, safetensors weights, nothing that leads outside.

    Raises:
        ModelError: says what is missing.
    """
    path = resolve_model(folder)
    if not (path / "config.json").is_file():
        adapter = (path / "adapter_config.json").is_file()
        raise ModelError(
            "the folder has no config.json",
            where=str(path),
            why="it holds an adapter, not a model" if adapter else None,
            fix="give the base model's folder as the model and this one as the adapter" if adapter else None,
        )
    if not list(path.glob("*.safetensors")):
        pickles = sorted(p.name for p in (*path.glob("*.bin"), *path.glob("*.pth")))
        raise ModelError(
            "the folder has no .safetensors weights",
            where=str(path),
            why=f"it holds {', '.join(pickles)}, which can run code when loaded" if pickles else None,
            fix="save the model again with safe_serialization=True",
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = set(json.loads(index.read_bytes())["weight_map"].values())
            outside = [name for name in files if name != Path(name).name]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                "the weight index cannot be read", where=str(index), why=repr(error), fix="get the model's files again"
            ) from error
        if outside:
            raise ModelError(
                "the weight index names files outside its folder",
                where=str(index),
                why=min(outside),
                fix="use a model whose files are in one folder",
            )
    _check_layers(path)
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            "the folder holds a model and an adapter",
            where=str(path),
            why="transformers would load both without a word",
            fix="move adapter_config.json and adapter_model.safetensors to a folder of their own",
        )
    return path


def _check_layers(path: Path) -> None:
    """Refuse a config of more layers than the files have tensors, before anything builds them one by one."""
    try:
        config = json.loads((path / "config.json").read_bytes())
        layers = max(int(config.get(name) or 0) for name in ("num_hidden_layers", "n_layer", "num_layers"))
        if layers <= 1000:
            return
        tensors = 0
        for file in path.glob("*.safetensors"):
            with safe_open(file, "pt") as handle:
                tensors += len(handle.keys())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError):
        return  # loading says what is wrong
    if layers > tensors:
        raise ModelError(
            f"the config has {layers} layers and the files have {tensors} tensors",
            where=str(path / "config.json"),
            fix="get the model's files again",
        )


def check_weights(model: nn.Module, info: dict[str, Any], path: Path) -> None:
    """Refuse weights that are missing, unexpected, of another shape or not finite.

    Raises:
        ModelError: names them.
    """
    faults = {
        "missing": sorted(info.get("missing_keys", ())),
        "unexpected": sorted(info.get("unexpected_keys", ())),
        "of another shape": sorted(str(key) for key in info.get("mismatched_keys", ())),
    }
    found = []
    for kind, keys in faults.items():
        if keys:
            found.append(f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
    if found:
        raise ModelError(
            "the weights do not fit the config",
            where=str(path),
            why="; ".join(found),
            fix="it is a reward model: give a language model, or give it as a reward model"
            if "score.weight" in faults["unexpected"]
            else "check config.json, or get the files again",
        )
    for name, parameter in model.named_parameters():
        # A sum is not finite when a value is not; it needs no copy of the tensor.
        if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)):
            raise ModelError(
                f"weight {name} holds values that are not finite",
                where=str(path),
                fix="get the files again, or save the model from an earlier checkpoint",
            )


def save_model(
    model: nn.Module,
    folder: str | Path,
    source_folder: str | Path | None = None,
    *,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a transformers folder: config, safetensors, and the tokenizer's files of ``source_folder``.

    The folder appears whole or not at all when it is new; in a folder that exists each file is replaced whole.
    ``state_dict`` is written instead of the model's own weights; of the model then only its class and config matter.

    Raises:
        ResourceError: the folder cannot be written.
    """
    target = Path(folder)
    inner: Any = model
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Inside a folder that exists, which may be a mount of its own, or part of what a killed run leaves to sweep.
        home = target if target.is_dir() else target.parent
        for left in target.glob(".saving.*"):
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=".saving.", dir=home))
    except OSError as error:
        raise ResourceError(
            "the model cannot be written", where=str(target), why=str(error), fix="check the path and the free space"
        ) from error
    try:
        # Views that share one buffer (fused weights) are cut apart; tied weights stay tied.
        with quiet():
            inner.save_pretrained(str(staging), state_dict=state_dict or own_storage(inner), safe_serialization=True)
        if source_folder is not None:
            for name in TOKENIZER_FILES:
                source = Path(source_folder) / name
                if source.is_file():
                    shutil.copyfile(source, staging / name)
        umask = os.umask(0)
        os.umask(umask)
        target.mkdir(exist_ok=True)
        for file in sorted(staging.iterdir(), key=lambda p: p.name == "config.json"):
            file.chmod(0o666 & ~umask)
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(file, target / file.name)
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            "the model cannot be written", where=str(target), why=str(error), fix="check the path and the free space"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def own_storage(model: Any) -> dict[str, torch.Tensor]:
    """The model's state with fused weights cut apart, without what is tied to something else in it."""
    state = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    return {key: value if key in tied else value.clone() for key, value in state.items() if key not in tied}
