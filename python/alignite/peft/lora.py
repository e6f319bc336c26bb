"""LoRA (arXiv 2106.09685): y = W x + b + scale * B A dropout(x), with A and B trained and W frozen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alignite.errors import AdapterError
from alignite.models.linear import linear, product
from alignite.peft.config import LoraConfig
from alignite.peft.seat import (
    AdapterModule,
    Seat,
    check_name,
    is_linear,
    is_plain_linear,
    set_active,
    take_seat,
    weight_of,
)
from alignite.types import LowRank


class _Factor(AdapterModule):
    """One matrix, so that the parameters bear PEFT's names."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns))


class LoraAdapter(AdapterModule):
    """A LoRA update of one linear. ``lora_A.weight`` is (rank, in), ``lora_B.weight`` (out, rank), both float32."""

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = dropout
        self.lora_A = _Factor(rank, in_features)
        self.lora_B = _Factor(out_features, rank)

    def reset(self, how: bool | str, generator: torch.Generator) -> None:
        """Fill A and B from the generator, so that the start depends on the seed and nothing else."""
        rank, in_features = self.lora_A.weight.shape
        with torch.no_grad():
            if how == "gaussian":
                self.lora_A.weight.normal_(0.0, 1.0 / rank, generator=generator)
            else:
                # PEFT's kaiming_uniform_(a=sqrt(5)): uniform within 1 / sqrt(fan_in).
                self.lora_A.weight.uniform_(
                    -1 / math.sqrt(in_features), 1 / math.sqrt(in_features), generator=generator
                )
            if how is False:
                self.lora_B.weight.uniform_(-1 / math.sqrt(rank), 1 / math.sqrt(rank), generator=generator)
            else:
                self.lora_B.weight.zero_()

    def low_rank(self) -> LowRank:
        dropout = self.dropout if self.training else 0.0
        return LowRank(self.lora_A.weight, self.lora_B.weight, self.scale, dropout)

    def weight_delta(self) -> Tensor:
        """scale * B A, float32 (out, in)."""
        return self.scale * (self.lora_B.weight.float() @ self.lora_A.weight.float())

    def post(self, x: Tensor, y: Tensor) -> Tensor:
        a, b, scale, dropout = self.low_rank()
        if dropout:
            x = nn.functional.dropout(x, dropout)
        return y + scale * (x @ a.to(x.dtype).T @ b.to(x.dtype).T)


class SavedLinear(AdapterModule):
    """An adapter's own copy of a linear, used instead of it while the adapter is active: PEFT's ``modules_to_save``."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        weight = weight_of(base)
        self.weight = nn.Parameter(weight.detach().clone())
        bias = cast("Tensor | None", base.bias)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def post(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


class FusedLinear:
    """Mixed into seated linears: base and low-rank updates in one autograd node."""

    def fused_forward(self, x: Tensor, updates: tuple[LowRank, ...]) -> Tensor:
        module = cast("nn.Module", self)
        weight, bias = weight_of(module), cast("Tensor | None", module.bias)
        if len(updates) == 1:
            a, b, scale, dropout = updates[0]
        else:
            a = torch.cat([update.a for update in updates])
            b = torch.cat([update.b * update.scale for update in updates], dim=1)
            scale, dropout = 1.0, 0.0
        if torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad)):
            dropped = nn.functional.dropout(x, dropout) if dropout else x
            update = linear(linear(dropped, a.to(x.dtype)), b.to(x.dtype))
            return linear(x, weight, bias) + scale * update
        flat = x.reshape(-1, x.shape[-1])
        return cast("Tensor", _LoraLinear.apply(flat, weight, bias, a, b, scale, dropout)).view(*x.shape[:-1], -1)


class _LoraLinear(torch.autograd.Function):
    """Keeps x (which the linears of a group share), x A^T and the dropout mask; adds in place, not in new tensors."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dropout: float
    ) -> Tensor:
        mask = torch.rand_like(x, dtype=torch.float32) >= dropout if dropout else None
        t = product(_dropped(x, mask, dropout), a.to(x.dtype))
        y = product(x, weight, bias)
        y.addmm_(t, b.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(x, weight, a, b, t, mask)
        ctx.scale, ctx.dropout = scale, dropout
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, t, mask = ctx.saved_tensors
        g = grads[0]
        gb = product(g, b.to(g.dtype).T)
        d_b = product(t.T, g.T).T.mul(ctx.scale).to(b.dtype)
        d_a = product(gb.T, _dropped(x, mask, ctx.dropout).T).mul_(ctx.scale).to(a.dtype)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = product(g, weight.T)
            if mask is None:
                d_x.addmm_(gb, a.to(g.dtype), alpha=ctx.scale)
            else:
                d_x.addcmul_(product(gb, a.to(g.dtype).T), mask.to(g.dtype), value=ctx.scale / (1.0 - ctx.dropout))
        return d_x, None, None, d_a, d_b, None, None


def _dropped(x: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    return x if mask is None else (x * mask).mul_(1.0 / (1.0 - dropout))


def target_names(model: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the linears that the config selects, in the model's order.

    Raises:
        AdapterError: nothing is selected, or something that cannot carry LoRA, or a tied vocabulary head.
    """
    head = cast("Any", model).get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linears = {name: module for name, module in model.named_modules() if is_linear(module)}
    others = {name for name, _ in model.named_modules() if name and name not in linears}
    if config.wants_all_linear:
        plain = {name for name, module in linears.items() if isinstance(module, Seat) or is_plain_linear(type(module))}
        chosen = [name for name, module in linears.items() if module is not head and name in plain]
    else:
        chosen = [name for name in linears if _matches(name, config.target_modules)]
        wrong = [] if chosen else [name for name in others if _matches(name, config.target_modules)]
        if wrong:
            kind = type(model.get_submodule(wrong[0])).__name__
            raise AdapterError(
                f"target_modules selects {wrong[0]}, a {kind}", why="LoRA is for linears", fix="name linears"
            )
    if isinstance(config.target_modules, list) and not config.wants_all_linear:
        for target in config.target_modules:
            if not any(_matches(name, [target]) for name in linears):
                endings = sorted({name.rsplit(".", 1)[-1] for name in linears})
                near = get_close_matches(target, [*endings, *linears], 3)
                raise AdapterError(
                    f"target_modules has {target!r}, which no linear of the model is called",
                    fix=f"did you mean {', '.join(near)}?" if near else f"linears here end in: {', '.join(endings)}",
                )
    apart = saved_names(model, config)
    chosen = [name for name in chosen if name not in apart]
    chosen = [name for name in chosen if not (config.exclude_modules and _matches(name, config.exclude_modules))]
    chosen = [name for name in chosen if _in_layers(name, config)]
    if not chosen:
        endings = sorted({name.rsplit(".", 1)[-1] for name in linears})
        raise AdapterError(
            f"target_modules={config.target_modules!r} selects no linear of the model",
            fix=f"linears here end in: {', '.join(endings)}",
        )
    embedding = cast("Any", model).get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    for name in chosen:
        if head is not None and linears[name] is head and embedding is not None and head.weight is embedding.weight:
            raise AdapterError(
                f"{name} shares its weight with the input embedding",
                why="merging an update of it would change every token's embedding",
                fix="leave the vocabulary head out of target_modules",
            )
    return chosen


def saved_names(model: nn.Module, config: LoraConfig) -> list[str]:
    """Names of the linears that ``modules_to_save`` names, in the model's order.

    Raises:
        AdapterError: it names something that is no linear, or the vocabulary head.
    """
    wanted = config.modules_to_save or []
    found = [(name, module) for name, module in model.named_modules() if name and _matches(name, wanted)]
    head = cast("Any", model).get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in found:
        if not isinstance(module, nn.Linear) or module is head:
            raise AdapterError(
                f"modules_to_save names {name}, a {type(module).__name__}",
                why="the adapter carries copies of linears, not of the vocabulary head",
                fix="leave it out of modules_to_save, or train all weights",
            )
    return [name for name, _ in found]


def _matches(name: str, wanted: str | Iterable[str]) -> bool:
    if isinstance(wanted, str):
        try:
            return re.fullmatch(wanted, name) is not None
        except re.error as error:
            raise AdapterError(
                f"target_modules={wanted!r} is not a regular expression", why=str(error), fix="or give a list of names"
            ) from error
    return any(name == target or name.endswith(f".{target}") for target in wanted)


def _in_layers(name: str, config: LoraConfig) -> bool:
    if config.layers_to_transform is None:
        return True
    wanted = config.layers_to_transform
    indices = [wanted] if isinstance(wanted, int) else wanted
    patterns = [config.layers_pattern] if isinstance(config.layers_pattern, str) else config.layers_pattern
    if not patterns:
        found = re.match(r".*\.[^.]*\.(\d+)\.", name)
    else:
        found = next((m for p in patterns if (m := re.match(rf"(?:.*\.)?{p}\.(\d+)\.", name))), None)
    return found is not None and int(found.group(1)) in indices


def apply_adapter(model: nn.Module, config: Any, name: str = "default", seed: int = 0) -> list[str]:
    """Freeze the base, seat a new LoRA adapter on the linears that ``config`` selects, and make it active.

    Args:
        model: any module; a transformers model has its vocabulary head left out of "all-linear".
        config: :class:`LoraConfig` or PEFT's object.
        name: the adapter's name.
        seed: A and B depend on this and on nothing else.

    Returns:
        The names of the trainable parameters.

    Raises:
        AdapterError: nothing or something unfit is selected; the model is then as it was.
    """
    config = LoraConfig.from_any(config)
    names = target_names(model, config)
    saved = saved_names(model, config)
    for path in (*names, *saved):
        check_name(model.get_submodule(path), name)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    trainable = []
    for path in names:
        adapter = seat_lora(model, path, config, name)
        adapter.reset(config.init_lora_weights, generator)
        adapter.to(weight_of(model.get_submodule(path)).device)
        trainable += [f"{path}.adapters.{name}.{key}" for key, _ in adapter.named_parameters()]
    for path in saved:
        copy = seat_copy(model, path, name)
        trainable += [f"{path}.adapters.{name}.{key}" for key, _ in copy.named_parameters()]
    set_active(model, (name,))
    return trainable


def seat_lora(model: nn.Module, path: str, config: LoraConfig, name: str) -> LoraAdapter:
    """An unfilled LoRA adapter on the linear at ``path``."""
    module = model.get_submodule(path)
    out_features, in_features = weight_of(module).shape
    adapter = LoraAdapter(in_features, out_features, config.rank_of(path), config.scale_of(path), config.lora_dropout)
    adapter.train(module.training)
    take_seat(model, module, name, adapter)
    return adapter


def seat_copy(model: nn.Module, path: str, name: str) -> SavedLinear:
    """The adapter's own copy of the linear at ``path``, equal to it."""
    module = model.get_submodule(path)
    copy = SavedLinear(module)
    copy.train(module.training)
    take_seat(model, module, name, copy)
    return copy
