"""A tiny model, a prepared set that needs no tokenizer, and a loop over them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from alignite.config import TrainingConfig
from alignite.models import attention
from alignite.objectives.sft import SFTObjective
from alignite.training import checkpoint, distributed
from alignite.training.loop import Loop, Weights
from alignite.training.optim import Optimizer
from alignite.training.source import PackedSource
from alignite.types import IGNORE, SftBatch

VOCABULARY = 50
Segment = tuple[list[int], list[int]]


@dataclass
class ToySet:
    """What a PackedSource needs of a prepared set: windows of segments (ids, labels)."""

    windows: list[list[Segment]]
    fingerprint: str = "toy"
    folder: Path = Path("toy")

    def __len__(self) -> int:
        return len(self.windows)

    def window_tokens(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([sum(len(ids) for ids, _ in self.windows[i]) for i in indices], dtype=np.int64)

    def batch(self, indices: NDArray[np.int64]) -> SftBatch:
        segments = [segment for i in indices for segment in self.windows[i]]
        lengths = [len(ids) for ids, _ in segments]
        starts = np.cumsum([0, *lengths[:-1]])
        return SftBatch(
            torch.tensor([token for ids, _ in segments for token in ids]),
            torch.tensor([label for _, labels in segments for label in labels]),
            torch.cat([torch.arange(length) for length in lengths]),
            np.stack([starts, lengths, np.full(len(lengths), -1)], axis=1).astype(np.int64),
            len(indices),
        )


def segment(length: int, scored: int, seed: int) -> Segment:
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, VOCABULARY, length).tolist()
    labels = [IGNORE] * (length - scored) + ids[length - scored :]
    return ids, labels


def eight_rows() -> list[Segment]:
    """Rows of very different lengths and scored counts, where a mean of means would be far off."""
    shapes = [(5, 1), (40, 30), (12, 4), (9, 8), (33, 2), (7, 3), (21, 20), (15, 5)]
    return [segment(length, scored, seed) for seed, (length, scored) in enumerate(shapes)]


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    """Two layers of width 32, with attention routed as the loader routes it."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **options,
    )
    attention.register()
    model = LlamaForCausalLM(config).to(dtype)
    model.set_attn_implementation(attention.NAME)
    return model


class RecordingOptimizer(Optimizer):
    """Keeps the gradients of each update, as they are before clipping."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gradients: list[dict[str, Tensor]] = []

    def step(self, rate: float, norm: Tensor) -> None:
        self.gradients.append({name: self._gradient(master).clone() for name, master in self.masters.items()})
        super().step(rate, norm)


def make_loop(run: Path, model: nn.Module, rows: ToySet, objective: Any = None, **options: Any) -> Loop:
    """A loop that trains all weights; ``options`` are of TrainingConfig."""
    config = TrainingConfig(**{"shuffle": False, "learning_rate": 1e-3, "save_steps": 0, **options})
    source = PackedSource(
        rows,  # type: ignore[arg-type]
        batch_size=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        max_tokens=config.micro_batch_tokens or None,
        seed=config.seed,
        shuffle=config.shuffle,
        rank=distributed.rank(),
        world=distributed.world(),
        epochs=config.num_train_epochs,
        max_steps=config.max_steps,
    )
    parameters = dict(model.named_parameters())

    def save(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: parameter.detach() for name, parameter in parameters.items()}, folder / "model.safetensors")

    def load(folder: Path) -> None:
        tensors = checkpoint.load_weights(folder)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(tensors[name])

    run.mkdir(parents=True, exist_ok=True)
    return Loop(
        models={"policy": model},
        objective=objective if objective is not None else SFTObjective(),
        source=source,
        optimizer=RecordingOptimizer(parameters, config),
        config=config,
        weights=Weights(save=save, load=load),
        run_dir=run,
    )


def one_update(run: Path, rows: ToySet, **options: Any) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the first update from the same weights."""
    loop = make_loop(run, tiny_llama(), rows, max_steps=1, **options)
    result = loop.run()
    assert isinstance(loop.optimizer, RecordingOptimizer)
    return result.metrics["loss"], loop.optimizer.gradients[0]


def main() -> None:
    """One rank of two: the first update on half of every batch; written to the folder in the environment."""
    distributed.initialise(torch.device("cpu"))
    run = Path(os.environ["RUN"])
    loss, gradients = one_update(run, ToySet([[row] for row in eight_rows()]), per_device_train_batch_size=4)
    torch.save({"loss": loss, "gradients": gradients}, run / f"rank{distributed.rank()}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
