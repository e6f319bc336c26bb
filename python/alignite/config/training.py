"""The options of training methods."""

from __future__ import annotations

from alignite.config.data import DataOptions
from alignite.config.options import Options, check_bound, check_device, config_class, option
from alignite.errors import ConfigError


@config_class
class TrainingConfig(Options):
    """Options that every training method shares; names are TRL's and transformers' where they exist."""

    model: str | None = option(default=None, help="model to train: a folder, or org/name[@revision] of the hub")
    data: list[str] = option(default=[], help="files of any format, folders, globs, URLs, or org/name[:[config:]split]")
    eval_data: list[str] = option(default=[], help="held-out data, evaluated every eval_steps and at the end")
    output_dir: str | None = option(default=None, help="the run's folder")

    num_train_epochs: float = option(default=3.0, help="passes over the data, unless max_steps is given")
    max_steps: int = option(default=-1, help="updates to make; -1 means num_train_epochs")
    per_device_train_batch_size: int = option(default=8, help="windows in a batch")
    per_device_eval_batch_size: int = option(default=8, help="windows in an evaluation batch")
    gradient_accumulation_steps: int = option(default=1, help="batches in an update")
    micro_batch_tokens: int = option(
        default=0,
        help="tokens in a forward pass: a batch with more is split, with the same result; 0 means 896 on a CPU, no "
        "limit on a GPU",
    )
    learning_rate: float = option(default=2e-5, help="peak learning rate")
    lr_scheduler_type: str = option(
        default="linear", help="learning-rate schedule", choices=("linear", "cosine", "constant")
    )
    warmup_steps: int = option(default=0, help="updates over which the rate rises from 0")
    warmup_ratio: float = option(default=0.0, help="the same as a share of all updates, when warmup_steps is 0")
    weight_decay: float = option(default=0.0, help="AdamW's decoupled weight decay (biases and norms are left out)")
    adam_beta1: float = option(default=0.9, help="AdamW's beta1")
    adam_beta2: float = option(default=0.999, help="AdamW's beta2")
    adam_epsilon: float = option(default=1e-8, help="AdamW's epsilon")
    max_grad_norm: float = option(default=1.0, help="clip the gradient's global norm to this; 0 means never")
    dtype: str = option(default="float32", help="the base model's dtype", choices=("float32", "bfloat16"))
    device: str = option(default="auto", help="auto, cpu, cuda or cuda:N")
    gradient_checkpointing: bool = option(default=False, help="recompute layers in the backward pass to save memory")
    logits_chunk_size: int = option(default=256, help="scored positions whose logits exist at one time")
    shuffle: bool = option(
        default=True, help="read windows in a random order, another one each epoch; false keeps the files' order"
    )
    seed: int = option(default=42, help="seed of the order, the adapters' start and dropout")
    num_threads: int = option(default=0, help="CPU threads for data and math; 0 means all cores")

    logging_steps: int = option(default=1, help="updates between two lines of metrics")
    eval_steps: int = option(default=0, help="updates between evaluations; 0 means only at the end")
    save_steps: int = option(default=500, help="updates between checkpoints; 0 means only at the end")
    save_total_limit: int = option(default=2, help="checkpoints to keep; 0 means all")
    metric_for_best_model: str | None = option(
        default=None, help="evaluations' metric that tells the best checkpoint, which is then kept: eval_loss, ..."
    )
    greater_is_better: bool | None = option(
        default=None, help="whether the best is the largest; default: unless the metric's name ends with loss"
    )
    load_best_model_at_end: bool = option(default=False, help="end with the best checkpoint's weights, not the last's")
    early_stopping_patience: int = option(
        default=0, help="evaluations without a better metric_for_best_model before the run stops; 0 means never"
    )
    early_stopping_threshold: float = option(default=0.0, help="how much better the metric must be to count")
    num_samples: int = option(
        default=3, help="prompts of the held-out (or training) data that are answered before and after, for the report"
    )
    sample_prompts: list[str] = option(default=[], help="user messages to answer instead of the data's")
    sample_tokens: int = option(default=64, help="longest of those answers in tokens")
    trackers: list[str] = option(
        default=[], help="where metrics go besides metrics.jsonl", choices=("tensorboard", "wandb", "trackio")
    )
    project: str = option(default="alignite", help="the project's name for trackers")
    run_name: str | None = option(default=None, help="the run's name for trackers; default: the name of output_dir")
    resume: str = option(default="auto", help="auto, never, or a checkpoint folder")

    use_peft: bool = option(default=False, help="train a LoRA adapter instead of all weights")
    lora_r: int = option(default=8, help="LoRA rank")
    lora_alpha: float = option(default=8, help="LoRA alpha; the update is scaled by alpha / r")
    lora_dropout: float = option(default=0.0, help="dropout on the adapter's input")
    lora_target_modules: list[str] = option(
        default=["all-linear"], help="linears to adapt: names, suffixes, or all-linear"
    )
    use_rslora: bool = option(default=False, help="scale by alpha / sqrt(r) instead")

    def validate(self) -> None:
        super().validate()
        for names, low, inclusive in self._bounds():
            for name in names:
                value = getattr(self, name)
                check_bound(name, value, low, inclusive)
        for name, top in (("adam_beta1", 1), ("adam_beta2", 1), ("lora_dropout", 1), ("warmup_ratio", 1)):
            if getattr(self, name) >= top:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be below {top}")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps is {self.max_steps}", fix="it must be above 0, or -1 for num_train_epochs")
        for name, most in (("seed", 2**63 - 1), ("num_threads", 4096), ("num_train_epochs", 10**6)):
            if getattr(self, name) > most:
                raise ConfigError(f"{name} is {getattr(self, name)}", fix=f"it must be at most {most}")
        check_device(self.device)
        if self.early_stopping_patience > 0 and self.eval_steps == 0:
            raise ConfigError(
                "early_stopping_patience is given and eval_steps is not",
                why="the only evaluation would be the one at the end",
                fix="set eval_steps to the updates between evaluations",
            )
        if self.watches_best and self.metric_for_best_model is None:
            self.metric_for_best_model = "eval_loss"
        if self.metric_for_best_model is not None and not self.metric_for_best_model.startswith("eval_"):
            raise ConfigError(
                f"metric_for_best_model is {self.metric_for_best_model!r}",
                fix=f"it is a metric of the evaluations, such as eval_{self.metric_for_best_model}",
            )

    @property
    def watches_best(self) -> bool:
        """Whether some option needs to know the best evaluation."""
        stops = self.early_stopping_patience > 0
        return stops or self.load_best_model_at_end or self.metric_for_best_model is not None

    def _bounds(self) -> list[tuple[tuple[str, ...], float, bool]]:
        counts = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
        sizes = ("logging_steps", "logits_chunk_size", "lora_r", "sample_tokens")
        limits = ("micro_batch_tokens", "num_threads", "max_grad_norm")
        rest = ("warmup_steps", "save_steps", "eval_steps", "save_total_limit", "seed")
        watch = ("early_stopping_patience", "early_stopping_threshold", "num_samples")
        decays = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "lora_dropout", "warmup_ratio")
        return [
            ((*counts, *sizes), 1, True),
            ((*rest, *watch, *limits, *decays), 0, True),
            (("num_train_epochs", "adam_epsilon", "lora_alpha"), 0, False),
        ]


@config_class
class SFTConfig(DataOptions, TrainingConfig):
    """Supervised fine-tuning: options of the data path on top of :class:`TrainingConfig`."""
