"""The configuration of a run: one dataclass a method, one field an option.

The command line, ``--config`` files and Python share these fields: a field's
name is the option's name, its metadata is the option's help, and values are
checked here, once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, help: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its help text; a list default is copied for each instance."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(kw_only=True)
class TrainingConfig:
    """Options that every training method shares; names are TRL's and transformers' where they exist."""

    model: str | None = option(None, "model folder to train")
    data: list[str] = option([], "training files (JSONL, JSONL.gz) or globs")
    eval_data: list[str] = option([], "held-out files, evaluated every eval_steps and at the end")
    output_dir: str | None = option(None, "the run's folder")

    num_train_epochs: float = option(3.0, "passes over the data, unless max_steps is given")
    max_steps: int = option(-1, "updates to make; -1 means num_train_epochs")
    per_device_train_batch_size: int = option(8, "windows in a micro-batch")
    per_device_eval_batch_size: int = option(8, "windows in an evaluation batch")
    gradient_accumulation_steps: int = option(1, "micro-batches in an update")
    learning_rate: float = option(2e-5, "peak learning rate")
    lr_scheduler_type: str = option("linear", "learning-rate schedule", choices=("linear", "cosine", "constant"))
    warmup_steps: int = option(0, "updates over which the rate rises from 0")
    warmup_ratio: float = option(0.0, "the same as a share of all updates, when warmup_steps is 0")
    weight_decay: float = option(0.0, "AdamW's decoupled weight decay (biases and norms are left out)")
    adam_beta1: float = option(0.9, "AdamW's beta1")
    adam_beta2: float = option(0.999, "AdamW's beta2")
    adam_epsilon: float = option(1e-8, "AdamW's epsilon")
    max_grad_norm: float = option(1.0, "clip the gradient's global norm to this; 0 means never")
    dtype: str = option("float32", "the base model's dtype", choices=("float32", "bfloat16"))
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    gradient_checkpointing: bool = option(False, "recompute layers in the backward pass to save memory")
    logits_chunk_size: int = option(512, "scored positions whose logits exist at one time")
    seed: int = option(42, "seed of the order, the adapters' start and dropout")
    num_threads: int = option(0, "CPU threads for data and math; 0 means all cores")

    logging_steps: int = option(1, "updates between two lines of metrics")
    eval_steps: int = option(0, "updates between evaluations; 0 means only at the end")
    save_steps: int = option(500, "updates between checkpoints; 0 means only at the end")
    save_total_limit: int = option(2, "checkpoints to keep; 0 means all")
    resume: str = option("auto", "auto, never, or a checkpoint folder")

    use_peft: bool = option(False, "train a LoRA adapter instead of all weights")
    lora_r: int = option(8, "LoRA rank")
    lora_alpha: float = option(8, "LoRA alpha; the update is scaled by alpha / r")
    lora_dropout: float = option(0.0, "dropout on the adapter's input")
    lora_target_modules: list[str] = option(["all-linear"], "linears to adapt: names, suffixes, or all-linear")
    use_rslora: bool = option(False, "scale by alpha / sqrt(r) instead")


@dataclass(kw_only=True)
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning: options of the data path on top of :class:`TrainingConfig`."""

    max_length: int = option(1024, "longest row in tokens; longer rows are cut at a turn border and counted")
    packing: str = option("none", "how rows share a window of max_length tokens", choices=("none", "bfd"))
    prompt_column: str | None = option(None, "column that holds the prompt")
    completion_column: str | None = option(None, "column that holds the completion")
    apply_chat_template: bool = option(True, "render rows with the model's chat template; false leaves text raw")
    template_date: str | None = option(None, "date that templates see as today, YYYY-MM-DD; default: the first run's day")
    on_bad_row: str = option("error", "what a malformed row does", choices=("error", "skip"))
