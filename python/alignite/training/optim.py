"""AdamW with float32 masters, and learning rates as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alignite.config import TrainingConfig
from alignite.errors import CheckpointError


def learning_rate(config: TrainingConfig, step: int, total: int) -> float:
    """The rate of update ``step`` (from 0) of ``total``: a linear rise from 0, then linear, cosine or constant.

    The formulas are transformers' ``get_linear_schedule_with_warmup`` and its kin; there is no state to save.
    """
    warmup = config.warmup_steps or math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.learning_rate * step / max(1, warmup)
    progress = (step - warmup) / max(1, total - warmup)
    if config.lr_scheduler_type == "linear":
        return config.learning_rate * max(0.0, 1.0 - progress)
    if config.lr_scheduler_type == "cosine":
        return config.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return config.learning_rate


class Optimizer:
    """AdamW (arXiv 1711.05101) over named parameters.

    A parameter below float32 gets a float32 master that the update is applied to; the parameter is its rounding.
    Biases and norms (parameters of fewer than two dimensions) are not decayed.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: TrainingConfig) -> None:
        self.parameters = dict(parameters)
        self.masters: dict[str, Tensor] = {
            name: parameter if _is_wide(parameter) else nn.Parameter(parameter.detach().float())
            for name, parameter in self.parameters.items()
        }
        decayed = [master for master in self.masters.values() if master.dim() >= 2]
        others = [master for master in self.masters.values() if master.dim() < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            fused=True,
        )
        self._max_norm = config.max_grad_norm

    def gradient_norm(self) -> Tensor:
        """Move gradients to the masters, float32, and give their global norm."""
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.masters[name] is not parameter:
                self.masters[name].grad = parameter.grad.float()
                parameter.grad = None
        norms = torch._foreach_norm([self._gradient(master) for master in self.masters.values()])
        total: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
        return total

    def bad_gradients(self) -> list[str]:
        """Names of parameters whose gradient is not finite."""
        return [name for name, master in self.masters.items() if not torch.isfinite(self._gradient(master)).all()]

    def step(self, rate: float, norm: Tensor) -> None:
        """Clip to the largest norm allowed, apply the update, forget the gradients."""
        if self._max_norm > 0:
            scale = (self._max_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([self._gradient(master) for master in self.masters.values()], scale)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                if self.masters[name] is not parameter:
                    parameter.copy_(self.masters[name])
        self.zero_grad()

    def zero_grad(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = None
            self.masters[name].grad = None

    @staticmethod
    def _gradient(master: Tensor) -> Tensor:
        assert master.grad is not None
        return master.grad

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything to save: moments and step counts by parameter, and masters that are not the parameter itself."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
            if master is not self.parameters[name]:
                tensors[f"master/{name}"] = master.detach().cpu().contiguous()
        return tensors

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up a saved state.

        Raises:
            CheckpointError: it was saved for other parameters.
        """
        expected = set(self.parameters)
        found = {key.split("/", 1)[1] for key in tensors}
        if found - expected or (tensors and expected - found):
            names = sorted(found ^ expected)
            raise CheckpointError(
                "the optimizer's state is for other parameters",
                why=f"they differ in {', '.join(names[:4])}",
                fix="resume with the model and adapter that the run began with, or choose another output_dir",
            )
        for key, tensor in tensors.items():
            kind, name = key.split("/", 1)
            master = self.masters[name]
            if kind == "master":
                with torch.no_grad():
                    master.copy_(tensor)
                    self.parameters[name].copy_(tensor)
            else:
                self._adamw.state[master][kind] = tensor.to(master.device, copy=True)


def _is_wide(parameter: Tensor) -> bool:
    return parameter.dtype in (torch.float32, torch.float64)
