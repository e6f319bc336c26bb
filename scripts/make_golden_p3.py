"""Golden renders by promptsource 0.2.3 for the templates and rows of tests/golden, and a comparison on its own ones.

Run by hand, once: `make golden`. promptsource does not install on this Python, so its sdist is unpacked and its one
module is loaded. Its templates may not be copied here: they are rendered by both sides on rows made up for them, and
only the numbers are printed. `choice` draws at random there; here it is given the draws of rust/data/src/instruct.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import types
from collections import Counter
from pathlib import Path
from typing import Any

import xxhash
import yaml
from jinja2 import meta, nodes

from alignite.errors import AligniteError
from alignite.native.instruct import PromptTemplate

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
MASK = (1 << 64) - 1
WORDS = ("Alpha beta", "gamma, delta.", "Is it so?", "one|two", "ünïcode 日本", "Line\nbreak  ", "(a) [b] {c}")


class Draws:
    """The draws of rust/data/src/instruct/mod.rs."""

    def __init__(self, seed: int, row: int, purpose: str) -> None:
        key = seed.to_bytes(8, "little") + row.to_bytes(8, "little") + purpose.encode()
        self.state = xxhash.xxh3_64_intdigest(key)

    def bits(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)


class Reference:
    """promptsource, with draws that can be told."""

    def __init__(self, folder: Path) -> None:
        for name, content in {"pkg_resources": {"resource_filename": lambda *_: str(folder)}, "pandas": {}}.items():
            sys.modules[name] = types.ModuleType(name)
            vars(sys.modules[name]).update(content)
        spec = importlib.util.spec_from_file_location("promptsource_templates", folder / "templates.py")
        assert spec is not None
        assert spec.loader is not None
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.env = self.module.env
        self.env.filters["choice"] = self.env.filters["random"] = self.choice
        self.draws = Draws(0, 0, "")

    def choice(self, items: Any) -> Any:
        return items[(self.draws.bits() * len(items)) >> 64]

    def parts(self, given: dict[str, Any], row: dict[str, Any], number: int, truncate: bool) -> list[str]:
        self.draws = Draws(Draws(0, number, given["id"]).bits(), 0, "")
        template = self.module.Template(given["name"], given["jinja"], "", None, given["answer_choices"])
        found: list[str] = template.apply(dict(row), truncate=truncate)
        return found


def load(path: Path) -> dict[str, dict[str, Any]]:
    class Loader(yaml.SafeLoader):
        pass

    for tag in ("!Template", "!TemplateMetadata"):
        Loader.add_constructor(tag, lambda loader, node: loader.construct_mapping(node, deep=True))
    templates: dict[str, dict[str, Any]] = yaml.load(path.read_text(encoding="utf-8"), Loader)["templates"]
    return templates


def outcome(work: Any, *arguments: Any) -> Any:
    """What is rendered; None when it fails."""
    try:
        return work(*arguments)
    except AligniteError:
        return None
    except Exception:  # noqa: BLE001 - whatever a template does with Python's objects
        return None


class Uses(dict[tuple[Any, ...], set[Any]]):
    """How a template uses its variables: paths (variable, key or index, ...) and what is done with them."""

    def __init__(self, tree: nodes.Template, variables: set[str]) -> None:
        super().__init__()
        self.variables = variables
        self.alias: dict[str, tuple[Any, ...]] = {}
        self.walk(tree)

    def path(self, node: nodes.Node | None) -> tuple[Any, ...] | None:
        steps: list[Any] = []
        while True:
            if isinstance(node, nodes.Getattr):
                steps.append(node.attr)
                node = node.node
            elif isinstance(node, nodes.Getitem):
                key = node.arg.value if isinstance(node.arg, nodes.Const) else 0
                if not isinstance(node.arg, nodes.Slice):
                    steps.append(key if isinstance(key, str) else 0)
                node = node.node
            elif isinstance(node, nodes.Filter) and node.name in ("list", "sort", "unique", "first", "last", "choice"):
                steps += [0] if node.name in ("first", "last", "choice") else []
                node = node.node
            else:
                break
        if not isinstance(node, nodes.Name):
            return None
        start = self.alias.get(node.name, (node.name,) if node.name in self.variables else None)
        return None if start is None else (*start, *reversed(steps))

    def note(self, node: nodes.Node | None, *uses: Any) -> None:
        path = self.path(node)
        if path is not None:
            self.setdefault(path, set()).update(uses)

    def walk(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.For | nodes.Assign):
            source = node.iter if isinstance(node, nodes.For) else node.node
            self.note(source, *(["list"] if isinstance(node, nodes.For) else []))
            path = self.path(source)
            if path is not None and isinstance(node.target, nodes.Name):
                self.alias[node.target.name] = (*path, 0) if isinstance(node, nodes.For) else path
        elif isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Name):
            self.note(node)
            if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Const | nodes.Slice):
                self.note(node.arg, "number")
        elif isinstance(node, nodes.Filter):
            if node.name in ("join", "most_frequent", "map", "unique", "select", "reject", "selectattr", "sort"):
                self.note(node.node, "list")
            if node.name in ("int", "round", "abs", "float"):
                self.note(node.node, "number")
        elif isinstance(node, nodes.Compare):
            other = node.ops[0].expr
            if isinstance(other, nodes.Const) and not isinstance(other.value, list | dict):
                in_list = node.ops[0].op in ("in", "notin")
                self.note(node.expr, *([] if in_list else [("is", other.value)]))
        elif isinstance(node, nodes.Sub | nodes.Mul | nodes.Div | nodes.Mod):
            self.note(node.left, "number")
            self.note(node.right, "number")
        elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            for argument in node.args:
                self.note(argument, "number")
        for child in node.iter_child_nodes():
            self.walk(child)

    def value(self, path: tuple[Any, ...], number: int, leaf: Any) -> Any:
        below = dict.fromkeys(
            other[len(path)] for other in self if len(other) > len(path) and other[: len(path)] == path
        )
        keys = [key for key in below if isinstance(key, str) and not hasattr(str, key) and not hasattr(list, key)]
        keys = [key for key in keys if key not in ("items", "keys", "update", "values", "get")]
        uses = self.get(path, set())
        if keys:
            return {key: self.value((*path, key), number, leaf) for key in keys}
        if 0 in below or "list" in uses:
            return [self.value((*path, 0), number + index, leaf) for index in range(3 + number % 3)]
        compared = sorted((use[1] for use in uses if isinstance(use, tuple)), key=str)
        if compared:
            return compared[number % len(compared)]
        return number % 3 if "number" in uses else leaf(number + len(path) + len(str(path)))


# Kinds of values for columns of which a template does not tell the kind.
LEAVES: tuple[Any, ...] = (
    lambda n: WORDS[n % len(WORDS)],
    lambda n: n % 3,
    lambda n: f"{n}.5",
    lambda n: n / 2,
    lambda n: [WORDS[(n + index) % len(WORDS)] for index in range(9)],
    lambda n: "Solve A: it = one. Then (two) [three] def f(x): return 'y'\nand Z. " * 8,
)


def compare(reference: Reference, folder: Path) -> None:
    """Both sides on promptsource's own templates, three rows each that it can render where such rows are found."""
    renders: Counter[str] = Counter()
    equal: Counter[str] = Counter()
    for file in sorted(folder.glob("**/templates.yaml")):
        for given in load(file).values():
            try:
                ours = PromptTemplate(given["jinja"], given["answer_choices"], None, given["id"])
            except AligniteError as error:
                equal["refused"] += 1
                print(f"refused: {file.relative_to(folder)} {given['name']!r}: {error}")
                continue
            tree = reference.env.parse((given["answer_choices"] or "") + "\n" + given["jinja"])
            variables = meta.find_undeclared_variables(tree) - {"range", "zip", "namespace", "answer_choices"}
            uses = Uses(tree, variables)
            same = True
            rendered = 0
            for number in range(3):
                for leaf in LEAVES:
                    row = {name: uses.value((name,), number, leaf) for name in sorted(variables)}
                    want = outcome(reference.parts, given, row, number, False)
                    if want is not None:
                        break
                got = outcome(ours.parts, json.dumps(row).encode(), 0, number)
                verdict = "both fail" if want is got is None else "equal" if want == got else "differ"
                verdict = "only promptsource fails" if want is None and got is not None else verdict
                renders[verdict] += 1
                rendered += want is not None
                same = same and want == got
                if verdict not in ("equal", "both fail"):
                    print(f"{verdict}: {file.relative_to(folder)} {given['name']!r} row {number}")
            equal["equal" if same and rendered else "never rendered" if same else "differ"] += 1
    print(f"renders: {dict(renders)}; templates: {dict(equal)}")


def main() -> None:
    """Unpack the sdist, write tests/golden/p3_renders.json, compare on the shipped templates."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        command += ["--ignore-requires-python", "--dest", name, "promptsource==0.2.3"]
        subprocess.run(command, check=True)
        with tarfile.open(Path(name) / "promptsource-0.2.3.tar.gz") as archive:
            archive.extractall(name, filter="data")
        folder = Path(name) / "promptsource-0.2.3" / "promptsource"
        reference = Reference(folder)
        rows = json.loads((GOLDEN / "p3_rows.json").read_text(encoding="utf-8"))
        renders = {
            f"{key}{'/truncated' if truncate else ''}": [
                outcome(reference.parts, given, row, number, truncate) for number, row in enumerate(rows)
            ]
            for key, given in load(GOLDEN / "p3_templates.yaml").items()
            for truncate in (False, True)
        }
        text = json.dumps(renders, ensure_ascii=False, indent=1)
        (GOLDEN / "p3_renders.json").write_text(text + "\n", encoding="utf-8")
        compare(reference, folder)


if __name__ == "__main__":
    main()
