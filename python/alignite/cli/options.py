"""Options from a config class's fields: ``--snake_case``, a YAML file, no abbreviations.

docs/adr/0009 says why this is argparse and not a library.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from alignite.config import coerce, unknown_option
from alignite.errors import ConfigError, UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message[:1].lower() + message[1:], fix=f"see {self.prog} --help")


def parse(
    config: type[Any], program: str, description: str, argv: Sequence[str], also: Sequence[type[Any]] = ()
) -> tuple[Any, bool]:
    """The config that a command line asks for, and whether ``--json`` is there.

    ``--config FILE`` gives defaults; what the command line says wins. The file may be another command's: options that
    this one lacks are checked by the first class of ``also`` that has all the file's, and left out. Not validated yet.

    Raises:
        UsageError, ConfigError: an option that does not exist, stands twice, lacks its value, or has a wrong one.
    """
    known = [item.name for item in fields(config)]
    hints = get_type_hints(config)
    lists = {name for name in known if get_origin(hints[name]) is list}
    _check_names(argv, [*known, "config", "json", "help"], lists)
    parser = _Parser(
        prog=program,
        usage=f"{program} [--option value ...]",
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28, width=_width()),
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with options; the command line wins")
    parser.add_argument("--json", action="store_true", help="print one JSON result on stdout")
    shown: set[str] = set()
    # A method's own default of a shared option stands with that option.
    for owner in reversed(config.__mro__):
        names = inspect.get_annotations(owner).keys() - shown
        own = [item for item in fields(config) if item.name in names]
        shown |= names
        if own and hasattr(owner, "__dataclass_fields__"):
            group = parser.add_argument_group(_title(owner))
            for item in own:
                _add(group, item, hints[item.name])
    values = vars(parser.parse_args(list(argv)))
    as_json = bool(values.pop("json", False))
    file = values.pop("config", None)
    allowed = (get_type_hints(_owner(Path(file), also)) if file and also else {}) | hints
    given = read_config(Path(file), list(allowed), allowed) if file else {}
    return config.from_dict({name: given[name] for name in given if name in known} | values), as_json


def _owner(path: Path, classes: Sequence[type[Any]]) -> type[Any]:
    """The first class that has all options of a file; the first one, where none has, or it cannot be read."""
    import yaml

    try:
        names = set(yaml.safe_load(path.read_bytes()))
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError):
        return classes[0]  # reading it says what is wrong
    return next((one for one in classes if names <= {item.name for item in fields(one)}), classes[0])


def _title(owner: type[Any]) -> str:
    return {"TrainingConfig": "training", "DataOptions": "data"}.get(owner.__name__, "options")


def _width() -> int:
    import shutil

    return max(60, min(110, shutil.get_terminal_size((80, 24)).columns - 2))


def _add(group: Any, item: Field[Any], kind: Any) -> None:
    default = item.default_factory() if item.default_factory is not MISSING else item.default
    shown = (
        " ".join(default)
        if isinstance(default, list)
        else str(default).lower()
        if isinstance(default, bool)
        else default
    )
    shown = shown.replace("\n", "\\n") if isinstance(shown, str) else shown
    text = item.metadata["help"].replace("%", "%%")
    if item.metadata["choices"]:
        text += f" ({', '.join(item.metadata['choices'])})"
    if shown not in (None, ""):
        text += f" [{str(shown).replace('%', '%%')}]"
    extra: dict[str, Any] = {"metavar": _metavar(kind)}
    if kind is bool:
        extra |= {"nargs": "?", "const": True}
    elif get_origin(kind) is list:
        extra |= {"nargs": "+", "action": "extend"}
    group.add_argument(f"--{item.name}", help=text, **extra)


def _metavar(kind: Any) -> str:
    names = {int: "N", float: "X", bool: "BOOL", str: "TEXT"}
    if get_origin(kind) is list:
        return names[get_args(kind)[0]]
    return names.get(kind) or next(names[part] for part in get_args(kind) if part in names)


def _check_names(argv: Sequence[str], known: list[str], lists: set[str]) -> None:
    seen: set[str] = set()
    before = ""
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].partition("=")[0]
            if name not in known:
                error = unknown_option(name, known, prefix="--")
                if before.startswith("--") and "=" not in before:  # it may have been meant as that one's value
                    error.why = "a value that begins with -- is written --option=VALUE"
                raise error
            if name in seen and name not in lists:
                raise UsageError(f"--{name} stands twice", fix="give it once")
            seen.add(name)
        before = word


def read_config(path: Path, known: list[str], hints: dict[str, Any]) -> dict[str, Any]:
    """Options of a YAML file.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value is of another type; the line is named.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            "the config file cannot be read", where=str(path), why=error.strerror, fix="check the path"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(
            "the config file is not YAML",
            where=place,
            why=getattr(error, "problem", str(error)),
            fix="write one `option: value` a line, in UTF-8",
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError("the config file is not a mapping", where=str(path), fix="write one `option: value` a line")
    seen: set[str] = set()
    for key, _ in node.value:
        place = f"{path}:{key.start_mark.line + 1}"
        if key.value not in known:
            raise unknown_option(str(key.value), known, place)
        if key.value in seen:
            raise ConfigError(f"option {key.value!r} stands twice", where=place, fix="give it once")
        seen.add(key.value)
        try:
            values[key.value] = coerce(key.value, hints[key.value], values[key.value])
        except ConfigError as error:
            error.where = place
            raise
    return values


def check_model_folder(name: str, part: Literal["model", "adapter"] = "model") -> Path:
    """The folder of a model or adapter, fetched from the hub if need be, before torch and transformers are imported.

    Raises:
        ModelError: there is no such folder or hub id, or the hub cannot be reached.
    """
    from alignite.data.hub import resolve_model

    return resolve_model(name, part)


def check_data(data: Sequence[str], eval_data: Sequence[str] = ()) -> None:
    """Find the files and fetch the hub's data sets before torch and transformers are imported.

    Raises:
        DataError: something is not there, or held-out data of the hub names no split.
    """
    from alignite.data.files import find_files

    find_files(data)
    find_files(eval_data, needs_split=True)


def escaped(text: str) -> str:
    """Text of files and folders in which nothing is left that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\u{ord(c):04x}" for c in text)


def stderr(text: str) -> None:
    """A line for people; results go to stdout."""
    print(escaped(text), file=sys.stderr)
