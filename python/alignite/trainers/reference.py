"""The reference model of a run: the policy without its adapter, a model of its own, or numbers computed once."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from alignite.data.prepared import split_windows
from alignite.errors import DataError
from alignite.files import write_file
from alignite.models.columns import compute_columns
from alignite.peft import use_adapters
from alignite.types import Role, module_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alignite.data.prepared import PreparedSet
    from alignite.types import FeedbackBatch

LOGP = "reference.logp"
_WITHOUT_EFFECT = ("_name_or_path", "architectures", "transformers_version", "use_cache")
"""Options of a model's config that say nothing about what it computes."""


def adapter_off(policy: nn.Module) -> Role:
    """The policy's base as its own reference: one copy of the weights serves both."""

    @contextmanager
    def off() -> Iterator[None]:
        training = policy.training
        policy.eval()  # a reference has no dropout, whatever the policy has
        try:
            with use_adapters(policy, None):
                yield
        finally:
            policy.train(training)

    return Role(policy, off)


def frozen_copy(policy: nn.Module) -> nn.Module:
    """The policy as it is now, for full fine-tuning."""
    return freeze(copy.deepcopy(policy))


def freeze(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, none of its weights trained."""
    return model.eval().requires_grad_(False)


@torch.no_grad()
def mix_into(reference: nn.Module, policy: nn.Module, share: float) -> None:
    """reference = (1 - share) * reference + share * policy, weight by weight (TR-DPO, arXiv 2404.09656, eq. 3)."""
    weights = dict(policy.named_parameters())
    for name, parameter in reference.named_parameters():
        parameter.lerp_(weights[name].detach().to(parameter), share)


class ReferenceLogProbs:
    """The reference's log-probability of every scored token of a set, computed once and kept beside the set.

    The file is float32 (scored tokens,) in the order of the windows. Its name is a hash of the set and of the
    reference's weights, so that no other model's numbers are ever taken.

    Raises:
        DataError: the file does not fit the set.
    """

    def __init__(self, prepared: PreparedSet, path: Path) -> None:
        counts = prepared.window_scored(np.arange(len(prepared)))
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._values = np.load(path, mmap_mode="r")
        if self._values.shape != (self._starts[-1],) or self._values.dtype != np.float32:
            raise DataError(
                "the reference's log-probabilities do not fit the data", where=str(path), fix="delete the file"
            )

    @classmethod
    def compute(
        cls,
        role: nn.Module | Role,
        prepared: PreparedSet,
        folder: Path,
        *,
        batch_size: int,
        max_tokens: int | None,
        chunk_size: int,
    ) -> ReferenceLogProbs:
        """Take the file that is there, or compute it, windows of like length together."""
        module = module_of(role)
        path = folder / f"reference-{weights_hash(module, prepared.fingerprint)}.npy"
        if not path.exists():
            write_file(path, npy_bytes(_computed(role, prepared, batch_size, max_tokens, chunk_size)))
        return cls(prepared, path)

    def of(self, windows: NDArray[np.int64]) -> torch.Tensor:
        """Of the scored tokens of some windows, in their order."""
        parts = [self._values[self._starts[window] : self._starts[window + 1]] for window in windows.tolist()]
        return torch.from_numpy(np.concatenate([*parts, np.zeros(0, np.float32)]))

    def batch(self, prepared: PreparedSet, windows: NDArray[np.int64]) -> FeedbackBatch:
        """Windows as a batch that knows the reference's log-probabilities."""
        return prepared.feedback_batch(windows).with_given({LOGP: self.of(windows)})


def _computed(
    role: nn.Module | Role, prepared: PreparedSet, batch_size: int, max_tokens: int | None, chunk_size: int
) -> NDArray[np.float32]:
    module = module_of(role)
    device = next(module.parameters()).device
    tokens = prepared.window_tokens(np.arange(len(prepared)))
    order = np.argsort(tokens, kind="stable")[::-1].copy()  # the longest first: what does not fit fails at once
    counts = prepared.window_scored(np.arange(len(prepared)))
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = np.zeros(int(starts[-1]), dtype=np.float32)
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for windows in split_windows(order, tokens[order], batch_size, max_tokens):
                batch = prepared.feedback_batch(windows).to(device)
                models: Mapping[str, nn.Module | Role] = {"reference": role}
                found = compute_columns(models, batch, frozenset({LOGP}), chunk_size=chunk_size)[LOGP].cpu().numpy()
                for window, part in zip(
                    windows.tolist(), np.split(found, np.cumsum(counts[windows])[:-1]), strict=True
                ):
                    values[starts[window] : starts[window + 1]] = part
    finally:
        module.train(training)
    return values


def npy_bytes(values: NDArray[np.float32]) -> bytes:
    """An array as the bytes of a .npy file."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def weights_hash(model: nn.Module, salt: str) -> str:
    """A hash of a model's own weights, adapters left out, and of the options that it computes with."""
    found = hashlib.blake2b(salt.encode(), digest_size=16)
    options = cast("Any", model).config.to_dict()
    kept = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    found.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(cast("torch.Tensor", value).detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
