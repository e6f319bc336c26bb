"""Write every error of the sources into docs/errors.md, or with ``--check`` say that it is not up to date.

Python is read by its syntax tree, Rust by regular expressions and by counting brackets. An error whose class or text
cannot be told stops the script, so that none is left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignite import errors

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "errors.md"
MARK = "<!-- what follows is made by scripts/error_page.py -->"
CODES = {
    name: value.exit_code
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.AligniteError) and value is not errors.AligniteError
}
HOLE = "..."


@dataclass(frozen=True, order=True)
class Message:
    """One error as the page shows it; ``home`` is the file that raises it."""

    code: int
    kind: str
    what: str
    fix: str
    home: str


# --- Python ---


class Reader(ast.NodeVisitor):
    """Collects the errors of one module; ``scopes`` are the functions around the place."""

    def __init__(self, home: str, tree: ast.Module) -> None:
        self.home, self.scopes, self.found = home, [tree], list[Message]()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scopes.append(node)  # type: ignore[arg-type]
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        for kind in self.classes(node):
            arguments = dict(zip(("what", "where", "why", "fix"), node.args, strict=False))
            arguments |= {item.arg: item.value for item in node.keywords if item.arg}
            if any(isinstance(item, ast.Starred) for item in node.args) or "what" not in arguments:
                raise SystemExit(f"{self.home}:{node.lineno}: an error without a text")
            what, fix = self.text(arguments["what"]), self.text(arguments.get("fix"))
            self.found.append(Message(CODES[kind], kind, what, fix, self.home))

    def classes(self, node: ast.Call) -> list[str]:
        """The classes that a call makes an error of: the one it names, or those that a variable may hold."""
        if not isinstance(node.func, ast.Name):
            return []
        name = node.func.id
        if name in CODES:
            return [name]
        if {item.arg for item in node.keywords}.isdisjoint({"why", "fix"}):
            return []
        held = {item.id for value in self.values(name) for item in ast.walk(value) if isinstance(item, ast.Name)}
        found = sorted(held & CODES.keys())
        if not found:
            raise SystemExit(f"{self.home}:{node.lineno}: the class of an error cannot be told")
        return found

    def values(self, name: str) -> list[ast.expr]:
        """What a name is assigned, or annotated as, in the innermost scope that knows it."""
        for scope in reversed(self.scopes):
            found: list[ast.expr] = []
            for node in ast.walk(scope):
                if isinstance(node, ast.arg) and node.arg == name and node.annotation is not None:
                    found.append(node.annotation)
                targets = (
                    node.targets
                    if isinstance(node, ast.Assign)
                    else [node.target]
                    if isinstance(node, ast.AnnAssign)
                    else []
                )
                names = {item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)}
                if name in names and node.value is not None:  # type: ignore[attr-defined]
                    found.append(node.value)  # type: ignore[attr-defined]
            if found:
                return found
        return []

    def text(self, node: ast.expr | None) -> str:
        """The text of an expression; what is known only then is a hole, alternatives are parted by a slash."""
        if node is None or (isinstance(node, ast.Constant) and node.value is None):
            return ""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(part) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left) + self.text(node.right)
        if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.IfExp):
            return self.text(node.value)
        if isinstance(node, ast.IfExp):
            return " / ".join(filter(None, (self.text(node.body), self.text(node.orelse))))
        if isinstance(node, ast.Name):
            values = [
                value for value in self.values(node.id) if isinstance(value, ast.Constant | ast.JoinedStr | ast.IfExp)
            ]
            return " / ".join(filter(None, (self.text(value) for value in values))) or HOLE
        return HOLE


def of_python(path: Path, home: str) -> Iterator[Message]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reader = Reader(home, tree)
    reader.visit(tree)
    yield from reader.found


# --- Rust ---

KINDS = {"Data": "DataError", "Template": "TemplateError", "Mask": "MaskError", "Tokenizer": "TokenizerError"}
KINDS |= {"Resource": "ResourceError", "Usage": "UsageError", "Backend": "TokenizerError"}
# How an error starts, its class (or the group that names it), and which argument is its text.
STARTS: tuple[tuple[str, str, int], ...] = (
    (r"\bError::data\(", "DataError", 0),
    (r"(?<!minijinja::)\bError::new\(\s*(?:\w+::)*Kind::(?!Interrupted)(\w+)\s*,", "", 1),
    (r"\bError::io\(", "ResourceError", 0),
    (r"\braise\(\s*py,\s*\"(\w+)\",", "", 2),
    (r"\bError::Unsupported\(", "GgufError", 0),
    (r"(?<!fn )\bmalformed\(", "GgufError", 1),
    (r"\busage\(", "UsageError", 0),
    (r"(?<!fn )\btemplate_error\(", "TemplateError", 0),
    (r"\bbad\(\s*format!", "TokenizerError", 0),
)
# Functions that make an error of a text they are given; their callers are in STARTS.
HELPERS = {"bad", "data", "io", "malformed", "new", "raise", "template_error", "usage"}
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


def call_end(text: str, start: int) -> int:
    """The place after the bracket that closes the one at ``start``."""
    depth, at = 0, start
    while at < len(text):
        string = _STRING.match(text, at)
        if string:
            at = string.end()
            continue
        if text.startswith(("'\"'", "'('", "')'"), at):
            at += 3
            continue
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return at
    raise SystemExit("a bracket is not closed")


def split_arguments(text: str) -> list[str]:
    """The arguments between a call's brackets."""
    parts, start, at = [], 0, 0
    while at < len(text):
        string = _STRING.match(text, at)
        if string:
            at = string.end()
        elif text[at] in "([{":
            at = call_end(text, at)
        else:
            if text[at] == ",":
                parts.append(text[start:at])
                start = at + 1
            at += 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def rust_text(argument: str, before: str) -> str:
    """A literal, a format!, or a name that one was given to; holes for what is known only then."""
    literal = _STRING.search(argument)
    if literal is None:
        name = argument.strip("& ").removesuffix(".into()").removesuffix(".clone()")
        given = list(re.finditer(rf"\b{re.escape(name)}(?:: &str)? = ([^;]*);", before)) if name.isidentifier() else []
        return rust_text(given[-1][1], "") if given and _STRING.search(given[-1][1]) else HOLE
    text = re.sub(r"\\\n\s*", "", literal[1]).replace('\\"', '"')
    if "format!" in argument[: literal.start()]:
        text = re.sub(r"(?<!\{)\{[^{}]*\}(?!\})", HOLE, text).replace("{{", "{").replace("}}", "}")
    return text


def fixes_given_later() -> dict[str, str]:
    """What the Rust core adds to errors without a fix of their own, by the file or the start that they come from."""
    places = {
        r"\bError::io\(": ("data/src/error.rs", r"Kind::Resource, what\)[^;]*?\.fix\("),
        "TemplateError": ("py/src/errors.rs", r"Kind::Template \| Kind::Mask => Some\("),
        "MaskError": ("py/src/errors.rs", r"Kind::Template \| Kind::Mask => Some\("),
        r"\bError::Unsupported\(": ("py/src/gguf.rs", r"Error::Unsupported\(what\) => raise\([^;]*?Some\((?=\")"),
        r"(?<!fn )\bmalformed\(": ("py/src/gguf.rs", r"Error::Malformed [^;]*?Some\(what\),\s*Some\("),
    }
    rows = ("data/src/rows.rs", r"const OTHERWISE: &str = ")
    places |= {f"rust/data/src/{name}.rs": rows for name in ("chat", "conversation", "encode")}
    found = {}
    for key, (name, anchor) in places.items():
        text = (ROOT / "rust" / name).read_text(encoding="utf-8")
        place = re.search(anchor, text, re.DOTALL)
        if place is None:
            raise SystemExit(f"rust/{name}: {anchor} is not there any more")
        found[key] = rust_text(text[place.end() : place.end() + 400], "")
    return found


def of_rust(path: Path, home: str, later: dict[str, str]) -> Iterator[Message]:
    text = path.read_text(encoding="utf-8").partition("#[cfg(test)]")[0]
    text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    constants = "\n".join(re.findall(r"const \w+: &str = [^;]*;", text))
    for pattern, kind, index in STARTS:
        for found in re.finditer(pattern, text):
            name = kind or KINDS.get(found[1], found[1])
            opening = text.index("(", found.start())
            end = call_end(text, opening)
            arguments = split_arguments(text[opening + 1 : end - 1])
            if index >= len(arguments) or name not in CODES:
                raise SystemExit(f"{home}: cannot read {text[found.start() : end][:80]}")
            what = rust_text(arguments[index], constants + text[: found.start()])
            fix = rust_text(arguments[5], "") if pattern.startswith(r"\braise") and arguments[5] != "None" else ""
            while link := re.compile(r"\s*\.(\w+)\(").match(text, end):
                end = call_end(text, link.end() - 1)
                if link[1] == "fix":
                    fix = rust_text(text[link.end() : end - 1], constants + text[: found.start()])
            fix = fix or later.get(pattern) or later.get(name) or (later.get(home, "") if name == "DataError" else "")
            what = f"the GGUF file is damaged: {what}" if "malformed" in pattern else what
            around = re.findall(r"(?:\bfn (\w+)|\blet (\w+) = \|)", text[: found.start()])
            if what == HOLE and not {*around[-1]} & HELPERS:
                raise SystemExit(f"{home}: cannot tell the text of {text[found.start() : end][:80]}")
            if what != HOLE:
                yield Message(CODES[name], name, what, fix, home)


# --- the page ---


def messages() -> list[Message]:
    found: set[Message] = set()
    for path in sorted((ROOT / "python" / "alignite").rglob("*.py")):
        found.update(of_python(path, str(path.relative_to(ROOT / "python" / "alignite"))))
    later = fixes_given_later()
    for path in sorted((ROOT / "rust").glob("*/src/**/*.rs")):
        found.update(of_rust(path, str(path.relative_to(ROOT)), later))
    return sorted(found)


def cell(text: str) -> str:
    return re.sub(r"(?:\.\.\.){2,}", HOLE, " ".join(text.split())).replace("|", "\\|")


def page(text: str) -> str:
    """The page with its list made anew."""
    found = messages()
    lines = [MARK, "", "## Every message", "", f"`{HOLE}` stands for what is known only when it happens.", ""]
    last = ""
    for message in found:
        if message.kind != last:
            lines += [
                "",
                f"### {message.kind}, exit code {message.code}",
                "",
                "| message | fix | raised in |",
                "|---|---|---|",
            ]
            last = message.kind
        lines.append(f"| {cell(message.what)} | {cell(message.fix)} | `{message.home}` |")
    return text.partition(MARK)[0].rstrip() + "\n\n" + "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if "--check" in words:
        if before != after:
            print("docs/errors.md is not up to date; run scripts/error_page.py")
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
