"""docs/errors.md lists what the sources raise."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from alignite import errors

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("error_page", ROOT / "scripts" / "error_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["error_page"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--check"]) == 0, capsys.readouterr().out


def test_every_class_stands_in_the_page_with_its_code(script: ModuleType) -> None:
    table = (ROOT / "docs" / "errors.md").read_text().partition(script.MARK)[0]
    assert len(script.CODES) >= 14
    for name, code in script.CODES.items():
        row = next(line for line in table.splitlines() if line.startswith("|") and f"`{name}`" in line)
        assert f"| {code} |" in row
        assert getattr(errors, name).exit_code == code


def of(script: ModuleType, source: str) -> list[tuple[str, str, str]]:
    reader = script.Reader("x.py", ast.parse(source))
    reader.visit(reader.scopes[0])
    return [(message.kind, message.what, message.fix) for message in reader.found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise DataError('a', fix='b')", ("DataError", "a", "b")),
        ("raise DataError(f'a {x} b', 'w', 'y', 'f')", ("DataError", "a ... b", "f")),
        ("e = ModelError('a ' f'{x}' + ('b' if x else 'c'), fix=None)", ("ModelError", "a ...b / c", "")),
        (
            "def f(x):\n  fix = 'one'\n  fix = f'two {x}'\n  raise DataError('a', fix=fix)",
            ("DataError", "a", "one / two ..."),
        ),
        ("def f(kind: type[MaskError]):\n  raise kind('a', fix='b')", ("MaskError", "a", "b")),
    ],
)
def test_texts_of_python(script: ModuleType, source: str, expected: tuple[str, str, str]) -> None:
    assert of(script, source) == [expected]


def test_an_error_that_cannot_be_told_stops_the_script(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="class of an error"):
        of(script, "raise kind('a', fix='b')")
    with pytest.raises(SystemExit, match="without a text"):
        of(script, "raise DataError(*parts)")
    file = tmp_path / "x.rs"
    file.write_text("fn other(what: &str) -> Error { Error::data(what) }")
    with pytest.raises(SystemExit, match="cannot tell the text"):
        list(script.of_rust(file, "x.rs", {}))


def test_texts_of_rust(script: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "x.rs"
    file.write_text(
        'const GONE: &str = "it is gone";\n'
        "fn read() -> Result<()> {\n"
        '    // Error::data("a comment")\n'
        '    Err(Error::data(format!("no {name:?} (\\"x\\") \\\n        here"))\n'
        '        .because("why").at(f(1)).fix("look, (there)"))?;\n'
        "    Err(Error::new(crate::error::Kind::Mask, GONE))?;\n"
        '    Err(minijinja::Error::new(ErrorKind::Bad, "not ours"))\n'
        "}\n"
        '#[cfg(test)]\nmod tests { fn x() { Error::data("a test"); } }\n'
    )
    found = [
        (message.kind, message.what, message.fix) for message in script.of_rust(file, "x.rs", {"MaskError": "later"})
    ]
    assert found == [
        ("DataError", 'no ... ("x") here', "look, (there)"),
        ("MaskError", "it is gone", "later"),
    ]
