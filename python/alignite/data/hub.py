"""Models of the Hugging Face hub where a folder is taken.

A local path always wins, then the hub's cache, which is used as it is; the network is asked last. Imports neither
torch nor transformers.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

from alignite.data.hub_access import HubName, hub_errors, repo_info, taken_for_path, unreachable, why_no_hub
from alignite.errors import AdapterError, ModelError

log = logging.getLogger("alignite")

Part = Literal["model", "tokenizer", "adapter"]

_TEXTS = ("*.json", "*.jinja", "*.model", "*.txt")
# What of a repository is fetched: never pickles, never code, nothing of its subfolders.
_WANTED = {
    "model": ("*.safetensors", *_TEXTS),
    "tokenizer": _TEXTS,
    "adapter": ("adapter_config.json", "adapter_model.safetensors"),
}
# consolidated* is a second copy of the weights in some repositories; an adapter beside a model is not the model.
_UNWANTED = {
    "model": ("*/*", "consolidated*", "adapter_*"),
    "tokenizer": ("*/*", "*.safetensors.index.json", "adapter_*"),
    "adapter": ("*/*",),
}
_NEEDED = {
    "model": ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    "adapter": _WANTED["adapter"],
}


def resolve_model(name: str | Path, part: Part = "model") -> Path:
    """The local folder of a model: the path itself, the hub's copy in the cache, or a download into it.

    Args:
        name: a folder, or ``org/name`` or ``org/name@revision`` of the hub; a ``Path`` is always a folder.
        part: what is needed of it: the model with its tokenizer, the tokenizer alone, or an adapter.

    Raises:
        ModelError: there is no such folder or repository, it lacks the part, or the hub cannot be reached.
        ResourceError: the cache cannot be written.
    """
    path = Path(name)
    if path.is_dir():
        return path
    noun, kind = ("adapter", AdapterError) if part == "adapter" else ("model", ModelError)
    hub = HubName.parse(name) if isinstance(name, str) and not path.exists() else None
    if hub is None or taken_for_path(hub):
        raise kind(
            f"no {noun} folder {str(name)!r}",
            why=why_no_hub(hub) if hub is not None else "it is a file" if path.is_file() else None,
            fix=f"check the path; for the hub's repository write {name}@main"
            if hub is not None
            else "give the folder of a PEFT adapter, or its hub id org/name"
            if part == "adapter"
            else "give a transformers folder or a hub id org/name; `alignite import-gguf` makes one from a GGUF file",
        )
    cached = _cached(hub, part)
    return cached if cached is not None else _download(hub, part, noun, kind)


def _cached(hub: HubName, part: Part) -> Path | None:
    """The snapshot in the cache when it holds all of the part."""
    from huggingface_hub import constants

    if not (Path(constants.HF_HUB_CACHE) / f"models--{hub.repo.replace('/', '--')}").is_dir():
        return None  # said before the import below, which takes a good part of the second that an answer may take
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                hub.repo,
                revision=hub.revision,
                allow_patterns=list(_WANTED[part]),
                ignore_patterns=list(_UNWANTED[part]),
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None
    return None if _missing(folder, part) else folder


def _missing(folder: Path, part: Part) -> list[str]:
    missing = [name for name in _NEEDED[part] if not (folder / name).is_file()]
    if part == "model":
        missing += [name for name in _weight_files(folder) if not (folder / name).is_file()]
    return missing


def _weight_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    try:
        return sorted({str(name) for name in json.loads(index.read_bytes())["weight_map"].values()})
    except FileNotFoundError:
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        return found or ["model.safetensors"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []  # loading says what is wrong with it


def _download(hub: HubName, part: Part, noun: str, kind: type[ModelError]) -> Path:
    from huggingface_hub import constants

    reason = unreachable()
    if reason is not None:
        raise kind(
            f"the {noun} is no folder here and not (wholly) in the cache, and the hub cannot be reached",
            where=hub.pinned,
            why=reason,
            fix=f"give a local folder; or, where there is a network, run `hf download {hub.repo}"
            + (f" --revision {hub.revision}" if hub.revision else "")
            + f"` and copy {constants.HF_HUB_CACHE}; `alignite import-gguf` makes a folder from a GGUF file",
        )
    from huggingface_hub import snapshot_download

    with hub_errors(hub, kind, noun):
        files = set(repo_info(hub, "model")["files"])
        needed = {"model": "config.json", "tokenizer": "tokenizer.json", "adapter": "adapter_config.json"}[part]
        if needed not in files:
            is_adapter = "adapter_config.json" in files
            raise kind(
                f"the repository has no {needed}",
                where=hub.pinned,
                why="it holds an adapter, not a model" if is_adapter and part != "adapter" else None,
                fix="give it as the adapter, and its base model as the model"
                if is_adapter
                else "give a repository of transformers' files",
            )
        if part != "tokenizer" and not any(name.endswith(".safetensors") and "/" not in name for name in files):
            raise kind(
                "the repository has no .safetensors weights",
                where=hub.pinned,
                why="other formats can run code when they are loaded, or are not read",
                fix="use a repository that has them; `alignite import-gguf` reads GGUF files",
            )
        log.warning("downloading %s from %s", hub.pinned, constants.ENDPOINT)
        return Path(
            snapshot_download(
                hub.repo,
                revision=hub.revision,
                allow_patterns=list(_WANTED[part]),
                ignore_patterns=list(_UNWANTED[part]),
                etag_timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
        )
