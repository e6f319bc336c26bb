"""A mixture as a YAML file says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignite.data.files import find_files
from alignite.data.mixture import Curriculum, Mixture, Stage, count_rows
from alignite.errors import ConfigError, UsageError

_RATES = {"sources", "rate", "cap", "temperature", "scale"}
_ROOT = _RATES | {"unit", "exhaust", "seed"}
_STAGE = _ROOT - {"seed"} | {"draws", "replay", "replay_of", "ramp"}
_SOURCE = {"data", "tokens", "weight"}
_CHOICES = {
    "rate": ("examples", "equal"),
    "unit": ("examples", "tokens"),
    "exhaust": ("repeat", "stop", "drop"),
}


@dataclass(frozen=True)
class MixFile:
    """What a mixture file asks for: a mixture or a curriculum, and the files of each source."""

    mixed: Mixture | Curriculum
    files: dict[str, list[Path]]
    rows: dict[str, int]


@dataclass
class _Reader:
    path: Path
    files: dict[str, list[Path]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def wrong(self, place: str, what: str, fix: str, why: str | None = None) -> ConfigError:
        return ConfigError(what, where=f"{self.path}: {place}" if place else str(self.path), why=why, fix=fix)

    def mapping(self, place: str, values: Any, known: set[str]) -> dict[str, Any]:
        if not isinstance(values, dict) or not values:
            raise self.wrong(place, "a mapping is missing", f"keys are {', '.join(sorted(known))}")
        for key in values:
            if key not in known:
                raise self.wrong(_join(place, key), "unknown key", f"keys are {', '.join(sorted(known))}")
        return values

    def number(self, place: str, values: dict[str, Any], key: str, *, whole: bool = False) -> Any:
        value = values.get(key)
        kinds = int if whole else (int, float)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            kind = "a whole number" if whole else "a number"
            raise self.wrong(_join(place, key), f"{key} is {value!r}", f"it must be {kind}")
        if whole and value is not None and not 0 <= value < 2**63:
            raise self.wrong(_join(place, key), f"{key} is {value}", "it must be 0 or more")
        return value

    def mixture(self, place: str, values: dict[str, Any], seed: int) -> Mixture:
        """The mixture of a mapping whose keys were checked."""
        sources = values.get("sources")
        here = _join(place, "sources")
        if not isinstance(sources, dict) or not sources:
            raise self.wrong(here, "no sources are named", "write `sources:` and under it a name and its data")
        for key, choices in _CHOICES.items():
            if values.get(key) is not None and values[key] not in choices:
                fix = f"it is one of {', '.join(choices)}"
                raise self.wrong(_join(place, key), f"{key} is {values[key]!r}", fix)
        parts: dict[str, int | Mixture] = {}
        weights: dict[str, float] = {}
        tokens: dict[str, int] = {}
        for name, part in sources.items():
            name, spot = str(name), _join(here, name)
            part = {"data": part} if isinstance(part, str | list) else part
            is_inner = isinstance(part, dict) and "sources" in part
            part = self.mapping(spot, part, _RATES | {"weight"} if is_inner else _SOURCE)
            if (weight := self.number(spot, part, "weight")) is not None:
                weights[name] = weight
            if is_inner:
                parts[name] = self.mixture(spot, part, 0)
            else:
                parts[name] = self.source(spot, name, part)
                if (count := self.number(spot, part, "tokens", whole=True)) is not None:
                    tokens[name] = count
        numbers = {key: self.number(place, values, key) for key in ("cap", "temperature", "scale")}
        others = {key: values[key] for key in _CHOICES if values.get(key) is not None}
        try:
            return Mixture(parts, weights=weights or None, tokens=tokens, seed=seed, **numbers, **others)
        except UsageError as error:
            raise self.wrong(
                place, error.what, error.fix or "", f"in {error.where}" if error.where else None
            ) from error

    def source(self, place: str, name: str, values: dict[str, Any]) -> int:
        """The rows of a source's files."""
        data = values.get("data")
        data = [data] if isinstance(data, str) else data
        if not isinstance(data, list) or not data or not all(isinstance(one, str) for one in data):
            raise self.wrong(_join(place, "data"), "no data is named", "write a path, a glob, or a list of them")
        files = find_files(data)
        if self.files.setdefault(name, files) != files:
            raise self.wrong(place, "the name has other data elsewhere", "one name is one source: give it another name")
        if name not in self.rows:
            self.rows[name] = sum(count_rows(files))
        return self.rows[name]


def read_mix_file(path: Path) -> MixFile:
    """The mixture that a YAML file describes; the rows of its data files are counted.

    A source is a name with ``data`` (paths, globs, data sets of the hub), and ``weight`` or ``tokens`` where they are
    used; or a mixture of its own, with ``sources`` again. ``rate``, ``cap``, ``temperature`` and ``scale`` stand
    beside ``sources``; ``unit``, ``exhaust`` and ``seed`` only at the outermost. ``stages`` instead of ``sources`` is
    a list of mixtures with ``draws`` and, if wanted, ``replay``, ``replay_of`` and ``ramp``.

    Raises:
        ConfigError: the file cannot be read, or a key or value cannot be taken; ``where`` is the path inside the file.
        DataError: a data file is not there, or is damaged.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        _check_names(path, yaml.compose(text, Loader=yaml.SafeLoader), set())
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            "the mixture cannot be read", where=str(path), why=error.strerror, fix="check the path"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        why = getattr(error, "problem", None) or str(error)
        raise ConfigError(
            "the mixture is not YAML", where=place, why=why, fix="write `key: value`, in UTF-8"
        ) from error
    reader = _Reader(path)
    is_staged = isinstance(values, dict) and "stages" in values
    values = reader.mapping("", values, {"stages", "seed"} if is_staged else _ROOT)
    seed = reader.number("", values, "seed", whole=True) or 0
    if not is_staged:
        return MixFile(reader.mixture("", values, seed), reader.files, reader.rows)
    if not isinstance(values["stages"], list):
        raise reader.wrong("stages", "the stages are no list", "write each as `- draws: ...`, with its sources")
    stages = []
    for index, stage in enumerate(values["stages"]):
        place = f"stages[{index}]"
        stage = reader.mapping(place, stage, _STAGE)
        whole = {key: reader.number(place, stage, key, whole=True) for key in ("draws", "replay_of", "ramp")}
        replay = reader.number(place, stage, "replay")
        mixture = reader.mixture(place, stage, 0)
        stages.append(Stage(mixture, whole["draws"] or 0, replay or 0.0, whole["replay_of"], whole["ramp"] or 0))
    try:
        return MixFile(Curriculum(stages, seed), reader.files, reader.rows)
    except UsageError as error:
        raise reader.wrong(error.where or "stages", error.what, error.fix or "") from error


def _check_names(path: Path, node: Any, done: set[int]) -> None:
    """Refuse a name that stands twice in one mapping, of which YAML would keep the last."""
    # An alias is the same node again.
    if node is None or node.id == "scalar" or id(node) in done:
        return
    done.add(id(node))
    if node.id == "sequence":
        for item in node.value:
            _check_names(path, item, done)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.id == "scalar" and key.value in seen:
            place = f"{path}:{key.start_mark.line + 1}"
            raise ConfigError(f"{key.value!r} stands twice", where=place, fix="give it once")
        seen.add(str(key.value))
        _check_names(path, value, done)


def _join(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)
