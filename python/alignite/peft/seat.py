"""The seat: a module's class swapped in place for one that carries adapters.

The module object, its parameters and their names stay, so optimizers, FSDP
and state dicts of the base see what they saw before. Adapters are children
under ``adapters``; they keep themselves out of the base's state dict.

Which adapters act is one value for all seats of a model, fixed while a forward
pass runs. Gradient checkpointing runs parts of the forward again during
backward, when the value may have moved on: ``checkpoint_context_fn`` restores
the value that the part saw first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from alignite.errors import AdapterError
from alignite.models.linear import Linear
from alignite.types import LowRank

_STATE = "_alignite_seats"


class SeatState:
    """What the seats of one model share."""

    def __init__(self) -> None:
        self.active: tuple[str, ...] = ()

    @contextmanager
    def using(self, names: tuple[str, ...]) -> Iterator[None]:
        before = self.active
        self.active = names
        try:
            yield
        finally:
            self.active = before


class AdapterModule(nn.Module):
    """One adapter on one module. Every method is a no-op unless a kind of adapter overrides it.

    Adapters have files of their own, so they neither enter nor miss from the base's state dict.
    """

    def pre(self, x: Tensor) -> Tensor:
        return x

    def post(self, x: Tensor, y: Tensor) -> Tensor:
        return y

    def weight_delta(self) -> Tensor | None:
        return None

    def low_rank(self) -> LowRank | None:
        return None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        return

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        return


class Seat:
    """Mixed in before the module's own class by :func:`seat_class`."""

    adapters: nn.ModuleDict
    seat_state: SeatState

    def active_adapters(self) -> list[AdapterModule]:
        return [cast("AdapterModule", self.adapters[name]) for name in self.seat_state.active if name in self.adapters]

    def low_rank_updates(self) -> tuple[LowRank, ...] | None:
        """The active updates when each active adapter is one, else None; see :class:`alignite.types.SeatedLinear`."""
        updates = tuple(adapter.low_rank() for adapter in self.active_adapters())
        return None if None in updates else cast("tuple[LowRank, ...]", updates)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        active = self.active_adapters()
        base: Callable[..., Any] = super().forward  # type: ignore[misc]
        if not active:
            return base(x, *args, **kwargs)
        fused = getattr(self, "fused_forward", None)
        if fused is not None and not args and not kwargs:
            updates = self.low_rank_updates()
            if updates is not None and (len(updates) == 1 or not any(update.dropout for update in updates)):
                return fused(x, updates)
        for adapter in active:
            x = adapter.pre(x)
        y = base(x, *args, **kwargs)
        for adapter in active:
            y = adapter.post(x, y)
        return y

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The seated class has no name of its own to be found by, so an object is rebuilt from its base class.
        return _rebuild, (type(self).__mro__[type(self).__mro__.index(Seat) + 1],), self.__dict__


def _rebuild(base: type[nn.Module]) -> nn.Module:
    cls = seat_class(base)
    return cls.__new__(cls)


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def seat_class(base: type[nn.Module]) -> type[nn.Module]:
    """The class that seats ``base``: same name, one per base class."""
    if base in _classes:
        return _classes[base]
    from alignite.peft.lora import FusedLinear

    mixins = (FusedLinear, Seat) if is_plain_linear(base) else (Seat,)
    body = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    _classes[base] = type(base.__name__, (*mixins, base), body)
    return _classes[base]


def state_of(model: nn.Module) -> SeatState:
    """The model's seat state, made at the first call."""
    state = model.__dict__.get(_STATE)
    if state is None:
        state = SeatState()
        object.__setattr__(model, _STATE, state)
    return cast("SeatState", state)


def take_seat(model: nn.Module, module: nn.Module, name: str, adapter: AdapterModule) -> None:
    """Put an adapter on a module of the model.

    Raises:
        AdapterError: the name is taken on this module, or cannot be a module's name.
    """
    check_name(module, name)
    if not isinstance(module, Seat):
        module.__class__ = seat_class(type(module))
        module.adapters = nn.ModuleDict()
        module.seat_state = state_of(model)  # type: ignore[assignment]
    cast("Seat", module).adapters[name] = adapter


def check_name(module: nn.Module, name: str) -> None:
    """Whether an adapter of this name may take a seat on the module.

    Raises:
        AdapterError: as :func:`take_seat`.
    """
    if not name or "." in name:
        raise AdapterError(f"an adapter cannot be called {name!r}", fix="use a name without dots")
    if isinstance(module, Seat) and name in module.adapters:
        raise AdapterError(
            f"there is an adapter called {name!r} already", fix="merge or remove it, or use another name"
        )


def leave_seat(module: nn.Module, name: str) -> None:
    """Take an adapter off a module; the last one gives the module its own class back."""
    seat = cast("Seat", module)
    del seat.adapters[name]
    if not len(seat.adapters):
        module.__class__ = type(module).__mro__[type(module).__mro__.index(Seat) + 1]
        del module.adapters
        del module.seat_state


def seats(model: nn.Module, name: str | None = None) -> dict[str, nn.Module]:
    """The seated modules by their names, or those that carry the adapter ``name``.

    Raises:
        AdapterError: no module carries it.
    """
    found = {
        path: module
        for path, module in model.named_modules()
        if issubclass(type(module), Seat) and (name is None or name in cast("Seat", module).adapters)
    }
    if name is not None and not found:
        known = sorted({key for module in seats(model).values() for key in cast("Seat", module).adapters})
        raise AdapterError(f"no adapter {name!r} on this model", fix=f"adapters here: {', '.join(known) or 'none'}")
    return found


def adapter_parameters(model: nn.Module, name: str = "default") -> dict[str, nn.Parameter]:
    """An adapter's parameters, ``MODULE.lora_A.weight`` and the like, in the model's order."""
    return {
        f"{path}.{key}": parameter
        for path, module in seats(model, name).items()
        for key, parameter in cast("Seat", module).adapters[name].named_parameters()
    }


@contextmanager
def use_adapters(model: nn.Module, names: str | Iterable[str] | None) -> Iterator[None]:
    """Run forward passes under these adapters; None or an empty list means the base alone.

    Raises:
        AdapterError: a name that no module carries.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names or ())
    for name in wanted:
        seats(model, name)
    with state_of(model).using(wanted):
        yield


def set_active(model: nn.Module, names: Iterable[str]) -> None:
    """Make these adapters act from now on."""
    state_of(model).active = tuple(names)


def checkpoint_context_fn(
    model: nn.Module,
) -> Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]:
    """The ``context_fn`` of torch.utils.checkpoint that makes a recomputation see its forward's adapters."""
    state = state_of(model)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), state.using(state.active)

    return contexts


def is_conv1d(module: nn.Module) -> bool:
    """transformers' Conv1D, a linear whose weight is (in, out)."""
    return any(cls.__name__ == "Conv1D" for cls in type(module).__mro__)


def is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_conv1d(module)


def is_plain_linear(kind: type[nn.Module]) -> bool:
    """Whether a class computes x W + b and no more: a subclass with a forward of its own may do anything."""
    return kind.__name__ == "Conv1D" or getattr(kind, "forward", None) in (nn.Linear.forward, Linear.forward)


def weight_of(module: nn.Module) -> Tensor:
    """A linear's weight as (out, in)."""
    weight = cast("torch.Tensor", module.weight)
    return weight.T if is_conv1d(module) else weight
