"""However an update is split over windows, micro-batches and ranks, its loss and gradient are the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from numpy.typing import NDArray
from torch import Tensor

from alignite.types import SftBatch


def same(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.fixture
def whole(tmp_path: Path) -> tuple[float, dict[str, Tensor]]:
    rows = toy.ToySet([[row] for row in toy.eight_rows()])
    return toy.one_update(tmp_path / "whole", rows, per_device_train_batch_size=8)


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4), (3, 3)])
def test_accumulation_changes_nothing(
    tmp_path: Path, whole: tuple[float, dict[str, Tensor]], batch: int, accumulation: int
) -> None:
    rows = toy.ToySet([[row] for row in toy.eight_rows()])
    options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    same(toy.one_update(tmp_path / "split", rows, **options), whole)


@pytest.mark.parametrize("tokens", [1, 20, 45])
def test_micro_batches_of_a_few_tokens_change_nothing(
    tmp_path: Path, whole: tuple[float, dict[str, Tensor]], tokens: int
) -> None:
    rows = toy.ToySet([[row] for row in toy.eight_rows()])
    options = {"per_device_train_batch_size": 8, "micro_batch_tokens": tokens}
    same(toy.one_update(tmp_path / "split", rows, **options), whole)


class Light(toy.ToySet):
    """Every token counts a thousandth: an update's weights sum to less than 1."""

    def batch(self, indices: NDArray[np.int64]) -> SftBatch:
        batch = super().batch(indices)
        return replace(batch, weights=torch.full(batch.labels.shape, 1e-3))


@pytest.mark.parametrize("batch", [1, 8])
def test_weights_that_sum_to_less_than_1_are_divided_by_their_sum(
    tmp_path: Path, whole: tuple[float, dict[str, Tensor]], batch: int
) -> None:
    rows = Light([[row] for row in toy.eight_rows()])
    options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 8 // batch}
    same(toy.one_update(tmp_path / "light", rows, **options), whole)


def test_packing_changes_nothing(tmp_path: Path, whole: tuple[float, dict[str, Tensor]]) -> None:
    rows = toy.eight_rows()
    packed = toy.ToySet([rows[:3], rows[3:4], rows[4:8]])
    same(toy.one_update(tmp_path / "packed", packed, per_device_train_batch_size=3), whole)


def test_a_micro_batch_without_scored_tokens_adds_nothing(
    tmp_path: Path, whole: tuple[float, dict[str, Tensor]]
) -> None:
    masked = toy.segment(11, 0, 99)
    rows = toy.ToySet([[row] for row in (*toy.eight_rows(), masked)])
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 9}
    same(toy.one_update(tmp_path / "masked", rows, **options), whole)


def test_an_update_of_masked_tokens_alone_is_zero(tmp_path: Path) -> None:
    rows = toy.ToySet([[toy.segment(6, 0, seed)] for seed in range(2)])
    loss, gradients = toy.one_update(tmp_path, rows, per_device_train_batch_size=2)
    assert loss == 0.0
    assert all(not gradient.any() for gradient in gradients.values())


def test_gradient_checkpointing_changes_nothing(tmp_path: Path, whole: tuple[float, dict[str, Tensor]]) -> None:
    from alignite.models.checkpointing import enable_gradient_checkpointing

    model = toy.tiny_llama()
    enable_gradient_checkpointing(model)
    loop = toy.make_loop(
        tmp_path, model, toy.ToySet([[row] for row in toy.eight_rows()]), max_steps=1, per_device_train_batch_size=8
    )
    loss = loop.run().metrics["loss"]
    assert isinstance(loop.optimizer, toy.RecordingOptimizer)
    same((loss, loop.optimizer.gradients[0]), whole)


@pytest.mark.slow
def test_two_gloo_ranks_change_nothing(tmp_path: Path, whole: tuple[float, dict[str, Tensor]]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, toy.__file__],
            env={**os.environ, **shared, "RANK": str(rank), "RUN": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for part in found:
        same((part["loss"], part["gradients"]), whole)
    for name, gradient in found[0]["gradients"].items():
        assert torch.equal(gradient, found[1]["gradients"][name]), name
