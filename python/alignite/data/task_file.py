"""A task as a YAML file: its data, its templates, and how instances are made."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from alignite.data.instruct import FewShot, TaskSource, TemplateSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import ConfigError

_KINDS: dict[str, tuple[type[Any], ...]] = {
    "data": (list, str),
    "templates": (str,),
    "task": (str,),
    "styles": (dict,),
    "few_shot": (dict,),
    "letters": (bool,),
    "templates_per_row": (int,),
    "truncate": (int,),
    "description": (bool,),
    "negatives": (int,),
    "explanations": (bool,),
}
_FEW_SHOT = [item.name for item in fields(FewShot) if item.name != "tokenizer"]


def read_task(
    path: str | Path, *, tokenizer: ChatTokenizer | None = None, on_bad_row: str = "error", num_threads: int = 0
) -> TaskSource:
    """The task of a YAML file.

    Its keys are ``data`` (files, globs, data sets of the hub), ``templates`` (a file, see :meth:`TemplateSet.load`),
    ``task``, ``styles``, ``few_shot`` (k, max_tokens, same_template, pool, all_targets), ``letters``,
    ``templates_per_row``, ``truncate``; and for a Super-NaturalInstructions file, which needs no ``data``,
    ``description``, ``negatives``, ``explanations``.

    Raises:
        ConfigError: an unknown key, or a value of another type; few_shot without a tokenizer.
        TemplateError, DataError, UsageError: as :class:`TaskSource` and :meth:`TemplateSet.load`.
    """
    place = str(path)
    given = _read(Path(path))
    _check(given, _KINDS, place, "")
    if "templates" not in given:
        raise ConfigError("the task has no templates", where=place, fix="add templates: FILE")
    loading = {
        name: given[name] for name in ("task", "truncate", "description", "negatives", "explanations") if name in given
    }
    templates = TemplateSet.load(given["templates"], **loading)
    few_shot = _few_shot(given.get("few_shot"), tokenizer, place)
    for name in ("negatives", "templates_per_row", "truncate"):
        if given.get(name, 0) < 0:
            raise ConfigError(f"{name} is {given[name]}", where=place, fix="it must be at least 0")
    styles = given.get("styles")
    for name, weight in (styles or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ConfigError(f"the weight of style {name} is {weight!r}", where=place, fix="it must be a number")
    return TaskSource(
        given.get("data"),
        templates,
        styles=styles,
        few_shot=few_shot,
        letters=given.get("letters", False),
        templates_per_row=given.get("templates_per_row", 1),
        on_bad_row=on_bad_row,
        num_threads=num_threads,
    )


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            "the task file cannot be read", where=str(path), why=error.strerror, fix="check the path"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            "the task file is not YAML",
            where=f"{path}:{mark.line + 1}" if mark is not None else str(path),
            why=getattr(error, "problem", str(error)),
            fix="write one `key: value` a line, in UTF-8",
        ) from error
    if not isinstance(given, dict):
        raise ConfigError("the task file is not a mapping", where=str(path), fix="write one `key: value` a line")
    return given


def _check(given: dict[str, Any], kinds: dict[str, tuple[type[Any], ...]], place: str, prefix: str) -> None:
    for name, value in given.items():
        if name not in kinds:
            near = get_close_matches(str(name), kinds, 1, 0.6)
            fix = f"did you mean {prefix}{near[0]}?" if near else f"keys are {', '.join(kinds)}"
            raise ConfigError(f"unknown key {prefix}{name}", where=place, fix=fix)
        # A bool is an int for Python only.
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            words = {list: "a list", str: "text", dict: "a mapping", bool: "true or false", int: "a whole number"}
            wanted = " or ".join(words[kind] for kind in kinds[name])
            raise ConfigError(f"{prefix}{name} is {value!r}", where=place, fix=f"it must be {wanted}")


def _few_shot(given: dict[str, Any] | None, tokenizer: ChatTokenizer | None, place: str) -> FewShot | None:
    if given is None:
        return None
    numbers, truths = ("max_tokens", "pool"), ("same_template", "all_targets")
    kinds: dict[str, tuple[type[Any], ...]] = {name: (list, int) for name in _FEW_SHOT if name == "k"}
    kinds |= dict.fromkeys(numbers, (int,)) | dict.fromkeys(truths, (bool,))
    _check(given, kinds, place, "few_shot.")
    k = given.get("k", [1, 5])
    k = [k, k] if isinstance(k, int) else k
    if len(k) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 1000 for n in k):
        raise ConfigError(f"few_shot.k is {given['k']!r}", where=place, fix="give [least, most], from 1 to 1000")
    for name in numbers:
        if given.get(name, 1) < 1:
            raise ConfigError(f"few_shot.{name} is {given[name]}", where=place, fix="it must be at least 1")
    if tokenizer is None:
        raise ConfigError(
            "few_shot needs a tokenizer, which counts its tokens", where=place, fix="add --model DIR, or tokenizer="
        )
    rest = {name: given[name] for name in (*numbers, *truths) if name in given}
    return FewShot(k=(k[0], k[1]), tokenizer=tokenizer, **rest)
