"""Reward models from and to folders: our own, TRL's, OpenRLHF's, any causal LM with a linear head on its last states.

In memory a reward model is the causal LM itself with a score head beside its vocabulary head, so that whatever runs a
causal LM runs it. On disk it is what transformers calls a sequence classifier: the same body, the score head, and no
vocabulary head unless that is the embedding.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from alignite.errors import ModelError, UsageError
from alignite.models.loading import (
    check_weights,
    checked_folder,
    own_storage,
    read_weights,
    ready_model,
    save_model,
)
from alignite.models.score_head import GAIN, OFFSET, ScoreHead, attach_score_head, score_scale, seat_head

log = logging.getLogger("alignite")

_HEAD_NAMES = ("score", "value_head")


def load_reward_model(
    folder: str | Path,
    heads: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    *,
    seed: int = 0,
) -> nn.Module:
    """A causal LM with a score head, ``model.score``, in evaluation mode.

    A folder with a score head keeps it: alignite's, TRL's RewardTrainer's, OpenRLHF's (``value_head_prefix``, ``mean``
    and ``std``), and any sequence or token classifier whose head is one linear on the last hidden states. Any other
    causal LM gets a new head, see :func:`alignite.models.score_head.attach_score_head`, and keeps its other weights.

    Args:
        folder: a transformers folder with safetensors weights, or its hub id ``org/name[@revision]``.
        heads: scores a reply; default: what the folder has, 1 for a new head.
        dtype: of the body; the head is float32.
        device: where the weights go.
        seed: of a new head.

    Raises:
        ModelError: as :func:`alignite.models.loading.load_model`; the folder's head has another number of scores; or
            the model is no causal LM.
    """
    path = checked_folder(folder)
    name = head_name(path)
    model, info = read_weights(path, dtype)
    head = None if name is None else _read_head(path, name)
    info = {key: set(value) for key, value in info.items() if key.endswith("_keys")}
    if head is not None:
        info["unexpected_keys"] -= {f"{name}.weight", f"{name}.bias"}
        model.has_vocabulary_head = not _borrow_embedding(model, info["missing_keys"])
    check_weights(model, info, path)
    if head is None:
        attach_score_head(model, heads or 1, seed=seed)
    else:
        if heads is not None and heads != head.out_features:
            raise ModelError(
                f"the score head gives {head.out_features} scores a reply, not {heads}",
                where=str(path),
                fix="give as many (num_heads, or criteria with a name for each), or a model without a score head",
            )
        vocabulary = model.get_output_embeddings()
        if head.in_features != vocabulary.weight.shape[1]:
            raise ModelError(
                f"the score head reads {head.in_features} numbers and the hidden states have "
                f"{vocabulary.weight.shape[1]}",
                where=str(path),
                fix="get the model's files again",
            )
        seat_head(model, head)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in head.parameters()):
            raise ModelError(
                "the score head holds values that are not finite", where=str(path), fix="get the model's files again"
            )
        score_scale(model)
    return ready_model(model, device)


def head_name(path: Path) -> str | None:
    """What the folder calls its score head; None when it has none."""
    keys = _keys(path)
    try:
        prefix = json.loads((path / "config.json").read_bytes()).get("value_head_prefix")
    except (OSError, ValueError, AttributeError):
        prefix = None  # loading says what is wrong
    names = (prefix, *_HEAD_NAMES) if isinstance(prefix, str) else _HEAD_NAMES
    return next((name for name in names if f"{name}.weight" in keys), None)


def _keys(path: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, "pt") as handle:
                found |= dict.fromkeys(handle.keys(), file)
        except (OSError, SafetensorError):
            continue  # loading says what is wrong
    return found


def _read_head(path: Path, name: str) -> ScoreHead:
    files = _keys(path)
    with safe_open(files[f"{name}.weight"], "pt") as handle:
        weight = handle.get_tensor(f"{name}.weight").float()
    bias = None
    if f"{name}.bias" in files:
        with safe_open(files[f"{name}.bias"], "pt") as handle:
            bias = handle.get_tensor(f"{name}.bias").float()
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ModelError(
            f"{name}.weight is {tuple(weight.shape)}, not (heads, hidden)",
            where=str(path),
            fix="give a model whose head is one linear",
        )
    with torch.device("meta"):
        head = ScoreHead(weight.shape[1], weight.shape[0], bias=bias is not None)
    head.weight = nn.Parameter(weight)
    if bias is not None:
        head.bias = nn.Parameter(bias)
    return head


def _borrow_embedding(model: Any, missing: set[str]) -> bool:
    """Tie a vocabulary head that the folder lacks to the embedding, so that nothing random is kept; whether it was."""
    vocabulary = model.get_output_embeddings()
    own = {f"{name}.{key}" for name, m in model.named_modules() if m is vocabulary for key, _ in m.named_parameters()}
    if not own & missing:
        return False
    with torch.no_grad():
        if vocabulary.bias is not None:
            vocabulary.bias.zero_()
        embedding = model.get_input_embeddings().weight
        if embedding.shape == vocabulary.weight.shape:
            vocabulary.weight = embedding
        else:
            vocabulary.weight.zero_()
    missing -= own
    return True


def save_reward_model(model: nn.Module, folder: str | Path, source_folder: str | Path | None = None) -> None:
    """Write a folder that transformers loads as a sequence classifier with the same raw scores.

    A head with a bias, as token classifiers have it, makes a token classifier. Gain and offset are in config.json,
    where only alignite reads them. transformers reads a score at a row's last token that is not ``pad_token_id``, so a
    padding token that also ends replies makes it read one token early: a warning says so.

    Args:
        source_folder: where the tokenizer's files are.

    Raises:
        UsageError: the model has no score head, or an adapter is on it. ModelError: transformers has no such class for
            the model. ResourceError: the folder cannot be written.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    )

    head = getattr(model, "score", None)
    if not isinstance(head, ScoreHead):
        raise UsageError("the model has no score head", fix="attach one, or save it with save_model")
    if any(".adapters." in name for name, _ in model.named_parameters()):
        raise UsageError("an adapter is on the model", fix="save the adapter with save_adapter, or merge it first")
    config: Any = model.config
    gain, offset = score_scale(model)
    mapping: Any = (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if head.bias is None else MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING
    )
    kind = mapping.get(type(config), None)
    written = type(config).from_dict(config.to_dict())
    written.num_labels = head.out_features
    for name in ("mean", "std", "normalize_reward", "value_head_prefix"):
        if hasattr(written, name):
            delattr(written, name)
    setattr(written, GAIN, gain)
    setattr(written, OFFSET, offset)
    _check_pad(written, Path(source_folder if source_folder is not None else folder))
    outline: Any = None
    if kind is not None:
        with torch.device("meta"):
            outline = kind(written)
    vocabulary = cast("Any", model).get_output_embeddings()
    dropped = {n for n, module in model.named_modules() if module is vocabulary}
    state = {key: value for key, value in own_storage(model).items() if key.rpartition(".")[0] not in dropped}
    if outline is None or set(outline.state_dict()) != set(state):
        raise ModelError(
            f"transformers has no classifier of {type(model).__name__} with such a head",
            why=None if outline is None else f"{kind.__name__} has other weights",
            fix="train it with an adapter, which is saved apart",
        )
    save_model(outline, folder, source_folder, state_dict=state)


def _check_pad(config: Any, source: Path) -> None:
    text = config.get_text_config()
    pad, ends = getattr(text, "pad_token_id", None), getattr(text, "eos_token_id", None)
    if pad is not None and pad in (ends if isinstance(ends, list) else [ends]):
        _tell_pad(int(pad), source)


@cache
def _tell_pad(pad: int, source: Path) -> None:
    """Said once a process: a run saves many times."""
    log.warning(
        "%s: pad_token_id %d also ends replies: transformers' classifiers read such a reply one token early, alignite "
        "does not; should transformers score with what is saved, set pad_token_id to another token in its config.json",
        source,
        pad,
    )
