"""How much memory a training run will take, told from its configuration before anything is loaded."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from alignite.errors import ModelError
from alignite.models.loading import DTYPES, checked_folder, quiet

ALLOCATOR_BYTES = 2**30 * 4 // 10
"""What the C library's allocator holds on a CPU beyond what is in use, as measured: see benches/RESULTS.md."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of an update, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    process: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.process


def empty_model(folder: str | Path) -> nn.Module:
    """The model of a folder without its weights: its modules and shapes, on torch's meta device.

    Raises:
        ModelError: the folder holds no model that transformers knows.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    path = checked_folder(folder)
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        first = str(error).strip().splitlines()
        raise ModelError(
            "the model cannot be built from its config",
            where=str(path / "config.json"),
            why=f"{type(error).__name__}: {first[0] if first else 'no message'}",
            fix="check config.json, or get the model's files again",
        ) from error
    return cast("nn.Module", model)


def count_parameters(model: nn.Module) -> int:
    """A model's parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def estimate_memory(
    model: nn.Module,
    *,
    trained: int,
    tokens: int,
    dtype: str = "float32",
    adapter: bool = False,
    gradient_checkpointing: bool = False,
    logits_chunk_size: int = 256,
    process: int = 0,
    kept: int = 0,
) -> MemoryEstimate:
    """The peak of an update of a model of the Llama family's shape; others may need more or less.

    Counted are the tensors that backward needs: in each layer the inputs of norms and linears, rotated queries and
    keys, values, attention's output twice and four tensors of the MLP's width.

    Args:
        model: as :func:`empty_model` gives it.
        trained: parameters that are trained: an adapter's (float32), or all of the model's.
        tokens: in the largest micro-batch.
        adapter: whether ``trained`` comes on top of the model's own parameters.
        logits_chunk_size: positions whose logits are there at a time; 0 for objectives that ask for none.
        process: bytes that the process holds already.
        kept: parameters of a second model in memory, such as a reference.
    """
    config: Any = cast("Any", model).config.get_text_config()
    size = torch.empty((), dtype=DTYPES[dtype], device="meta").element_size()
    weights = (count_parameters(model) + kept) * size + (trained * 4 if adapter else 0)
    held = 4 if adapter else size  # adapters are float32, and so are the masters of all that is trained below it
    gradients = trained * held
    optimizer = trained * (8 + (4 if held < 4 else 0))
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or hidden // heads)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    # Attention keeps keys and values once a query head.
    layer = 4 * hidden + 5 * heads * width + 4 * inner
    # Backward through the MLP holds three more of its tensors.
    kept_floats = (layers * hidden + layer) if gradient_checkpointing else layers * layer
    activations = tokens * (kept_floats + 3 * inner + 4 * hidden) * size
    if size < 4 and not gradient_checkpointing:
        activations += tokens * layers * 4 * hidden * 4  # norms compute in float32 and keep what they computed
    logits = 2 * min(logits_chunk_size, tokens) * int(config.vocab_size) * 4
    return MemoryEstimate(weights, gradients, optimizer, activations, logits, process)


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where that cannot be told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held: on the GPU since the last reset, on a CPU since its start."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes(device: torch.device) -> int | None:
    """What a run may take: the GPU's free memory, or the machine's, or what the control group leaves; None unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration, ValueError):
        pass
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return min(found, default=None)
