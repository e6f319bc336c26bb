"""What a config class is: fields with help, values turned into their types, unknown names answered."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Self, dataclass_transform, get_args, get_origin, get_type_hints

from alignite.config.elsewhere import ELSEWHERE
from alignite.errors import ConfigError


def option(default: Any, help: str, *, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field with its help text; a list default is copied for each instance."""
    metadata = {"help": help, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, field_specifiers=(option, field))
def config_class(cls: type[Any]) -> Any:
    """A keyword-only dataclass that names unknown options, with a suggestion, and turns values into their types."""
    made = dataclass(kw_only=True)(cls)
    plain = made.__init__

    @functools.wraps(plain)
    def init(self: Any, **values: Any) -> None:
        types = get_type_hints(made)
        for name in values:
            if name not in types:
                raise unknown_option(name, [item.name for item in fields(made)])
        plain(self, **{name: coerce(name, types[name], value) for name, value in values.items()})

    made.__init__ = init
    return made


def unknown_option(name: str, known: list[str], where: str | None = None, prefix: str = "") -> ConfigError:
    """The error for an option that does not exist: what says the same here, or what is nearly called so."""
    plain = name.replace("-", "_")
    here = ELSEWHERE.get(plain, "")
    near = get_close_matches(plain, known, 1, 0.6)
    if plain in known:
        fix = f"options are written with underscores: {prefix}{plain}"
    elif here.startswith("nothing: "):
        fix = f"leave it out: {here.removeprefix('nothing: ')}"
    elif here.partition(":")[0] in known:
        fix = f"alignite calls this {prefix}{here}"
    elif near:
        fix = f"did you mean {prefix}{near[0]}?"
    else:
        fix = "see the command's --help for the options there are"
    return ConfigError(f"unknown option {prefix}{name}", where=where, fix=fix)


def coerce(name: str, kind: Any, value: Any) -> Any:
    """A value as its field's type; text is read as the command line and YAML write it.

    Raises:
        ConfigError: it cannot be one.
    """
    if isinstance(kind, UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is list:
        items = value if isinstance(value, list | tuple) else [value]
        return [coerce(name, get_args(kind)[0], item) for item in items]
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    wrong = ConfigError(f"{name} is {value!r}", fix=f"it must be {words}")
    if kind is bool:
        text = str(value).lower()
        if text not in ("true", "false"):
            raise wrong
        return text == "true"
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        raise wrong
    if kind is str:
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if kind is float:
        return number
    if number != int(number) if abs(number) < 1e300 else True:
        raise wrong
    return int(value) if not isinstance(value, str) or value.lstrip("+-").isdecimal() else int(number)


class Options:
    """What every config class can do; subclasses are made by :func:`config_class`."""

    def validate(self) -> None:
        """Check values and conflicts.

        Raises:
            ConfigError: names the option, its value and what is allowed.
        """
        check_finite(self)
        for item in fields(self):  # type: ignore[arg-type]
            choices, value = item.metadata["choices"], getattr(self, item.name)
            for one in value if isinstance(value, list) else [value]:
                if choices is not None and one not in choices:
                    raise ConfigError(f"{item.name} is {one!r}", fix=f"it is one of {', '.join(choices)}")

    def to_dict(self) -> dict[str, Any]:
        """Every option by name, in order."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def to_yaml(self) -> str:
        """The same as YAML, which :meth:`from_dict` takes back."""
        import yaml

        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A config from names and values.

        Raises:
            ConfigError: an unknown name, or a value of another type.
        """
        return cls(**values)


def check_finite(options: Any) -> None:
    """Refuse a dataclass one of whose numbers, or of whose lists' numbers, is NaN or infinite.

    Raises:
        ConfigError: names the option.
    """
    for item in fields(options):
        value = getattr(options, item.name)
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise ConfigError(f"{item.name} is {value}", fix="it must be a finite number")


def check_share(name: str, value: float, top: float) -> None:
    """Refuse a value that is not at least 0 and below ``top``."""
    if not 0 <= value < top:
        raise ConfigError(f"{name} is {value}", fix=f"it must be at least 0 and below {top:g}")


def check_bound(name: str, value: float, low: float, inclusive: bool) -> None:
    """Refuse a value below ``low``, or one that is not finite."""
    if not (low <= value < math.inf) or (value == low and not inclusive):
        raise ConfigError(f"{name} is {value}", fix=f"it must be {'at least' if inclusive else 'above'} {low}")


def check_device(device: str) -> None:
    """Refuse what is no device's name; whether the device is there is seen when it is used."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"device is {device!r}", fix="it must be auto, cpu, cuda or cuda:N")
