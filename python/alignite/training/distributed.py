"""Ranks: who am I, and sums over all of us. One process alone needs no process group."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def initialise(device: torch.device) -> None:
    """Join the process group that torchrun announces, if it does, with this rank's own GPU."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def sum_floats(values: dict[str, float]) -> dict[str, float]:
    """Each value summed over ranks; a rank may lack a name that another has."""
    if world() == 1:
        return values
    gathered: list[Any] = [None] * world()
    dist.all_gather_object(gathered, values)
    total: dict[str, float] = {}
    for part in gathered:  # in rank order on every rank, so that all get the same bits
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def gather(value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    if world() == 1:
        return [value]
    gathered: list[Any] = [None] * world()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast(value: Any) -> Any:
    """Rank 0's value."""
    return gather(value)[0] if world() > 1 else value


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum gradients over ranks, in place, in buckets; the loss is divided by the global count already."""
    if world() == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (size > 8_000_000 or bucket[0].dtype != parameter.grad.dtype):
            _sum_bucket(bucket)
            bucket, size = [], 0
        bucket.append(parameter.grad)
        size += parameter.grad.numel()
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
