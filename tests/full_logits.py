"""What a vocabulary head gives, by all logits at once; the heads that tests compare it over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignite.models.head import Head

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"scale": 0.3},
    "capped": {"softcap": 5.0},
    "scaled and capped": {"scale": 2.0, "softcap": 3.0},
}


def log_softmax(head: Head, hidden: Tensor) -> Tensor:
    logits = hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    logits = logits * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return logits.log_softmax(-1)
