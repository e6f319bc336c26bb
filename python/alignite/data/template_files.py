"""Files of instruction templates: PromptSource's YAML, FLAN's patterns, Super-NaturalInstructions' tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignite.errors import TemplateError

_LARGEST = 64 << 20


def read_template_file(path: Path) -> Any:
    """What a .yaml or .json file holds; ``!Template`` and ``!TemplateMetadata`` become dicts, other tags are refused.

    Raises:
        TemplateError: the file cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise TemplateError("the template file is larger than 64 MiB", where=str(path), fix="is it a data file?")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text)
    except OSError as error:
        raise TemplateError(
            "the template file cannot be read", where=str(path), why=error.strerror, fix="check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TemplateError(
            "the template file is not JSON", where=str(path), why=str(error), fix="get the file again"
        ) from error
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        return loader.construct_mapping(node, deep=True)

    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, mapping)
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise TemplateError(
            "the template file is not YAML",
            where=f"{path}:{mark.line + 1}" if mark is not None else str(path),
            why=getattr(error, "problem", str(error)),
            fix="get the file again",
        ) from error


def understood(given: Any, path: Path, task: str | None) -> tuple[dict[str, Any], list[Mapping[str, Any]] | None]:
    """The templates as the Rust core takes them, and the rows that the file brings along.

    Raises:
        TemplateError: the file is of none of the known kinds.
    """
    if isinstance(given, dict) and isinstance(given.get("templates"), dict):
        name = "/".join(str(given[part]) for part in ("dataset", "subset") if given.get(part)) or path.stem
        templates = [_p3(str(key), value, path) for key, value in given["templates"].items()]
        return {"kind": "p3", "task": task or name, "templates": templates}, None
    if isinstance(given, dict) and "patterns" in given:
        patterns = given["patterns"]
        if isinstance(patterns, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, str) for side in pair)
            for pair in patterns
        ):
            return {"kind": "flan", "task": task or str(given.get("task") or path.stem), "patterns": patterns}, None
        raise TemplateError(
            "patterns is no list of pairs", where=str(path), fix="write [input pattern, target pattern], both texts"
        )
    if isinstance(given, dict) and "Definition" in given:
        rows = given.get("Instances")
        parts = {
            name: given[name] for name in ("Definition", "Positive Examples", "Negative Examples") if name in given
        }
        return {"kind": "natural", "task": task or path.stem, "file": parts}, rows if isinstance(rows, list) else None
    raise TemplateError(
        "the file holds no instruction templates",
        where=str(path),
        fix="give PromptSource's templates.yaml, a mapping with patterns (FLAN), or a task file with a Definition",
    )


def _p3(key: str, given: Any, path: Path) -> dict[str, Any]:
    if not isinstance(given, dict) or not isinstance(given.get("jinja"), str):
        raise TemplateError("a template has no jinja", where=f"{path}, template {key}", fix="get the file again")
    choices = given.get("answer_choices")
    if choices is not None and not isinstance(choices, str):
        raise TemplateError(
            "answer_choices is no text", where=f"{path}, template {key}", fix="write them with ||| between them"
        )
    metadata = given.get("metadata")
    return {
        "id": str(given.get("id") or key),
        "name": str(given.get("name") or key),
        "jinja": given["jinja"],
        "answer_choices": choices,
        "choices_in_prompt": bool(metadata.get("choices_in_prompt")) if isinstance(metadata, dict) else False,
    }
