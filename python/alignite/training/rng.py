"""Random states as integers and byte tensors, never as pickles."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignite.training import distributed


def seed(value: int) -> None:
    """Start Python's, numpy's and torch's generators of this rank."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def capture() -> dict[str, Tensor]:
    """The states of Python's, numpy's and torch's generators, of every rank, as uint8 tensors."""
    mine = {"python": _bytes(_python_state()), "numpy": _bytes(_numpy_state()), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        mine["cuda"] = torch.cuda.get_rng_state()
    ranks = distributed.gather(mine)
    return {f"{kind}.{rank}": state for rank, states in enumerate(ranks) for kind, state in states.items()}


def restore(states: dict[str, Tensor], fallback_seed: int) -> None:
    """Take up this rank's states; a rank that was not there then starts from the seed."""
    rank = distributed.rank()
    if f"torch.{rank}" not in states:
        seed(fallback_seed * 1_000_003 + rank)
        return
    version, numbers, gauss = json.loads(states[f"python.{rank}"].numpy().tobytes())
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = json.loads(states[f"numpy.{rank}"].numpy().tobytes())
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states[f"torch.{rank}"])
    if torch.cuda.is_available() and f"cuda.{rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda.{rank}"])


def _python_state() -> Any:
    version, numbers, gauss = random.getstate()
    return [version, list(numbers), gauss]


def _numpy_state() -> Any:
    name, keys, position, has_gauss, cached = np.random.get_state()
    return [name, [int(key) for key in keys], position, has_gauss, cached]


def _bytes(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
