"""PromptSource's renders of our templates, made by scripts/make_golden_p3.py, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignite.data.template_files import read_template_file, understood
from alignite.errors import TemplateError
from alignite.native.instruct import PromptTemplate

HERE = Path(__file__).parent
RENDERS: dict[str, list[list[str] | None]] = json.loads((HERE / "p3_renders.json").read_text(encoding="utf-8"))
ROWS: list[dict[str, Any]] = json.loads((HERE / "p3_rows.json").read_text(encoding="utf-8"))
FILE = HERE / "p3_templates.yaml"
TEMPLATES = {item["id"]: item for item in understood(read_template_file(FILE), FILE, None)[0]["templates"]}


def test_every_template_has_its_renders_and_few_of_them_fail() -> None:
    assert set(RENDERS) == {f"{name}{end}" for name in TEMPLATES for end in ("", "/truncated")}
    assert len(ROWS) == 4
    plain = [render for key, renders in RENDERS.items() if "/" not in key for render in renders]
    assert sum(render is None for render in plain) <= 1
    assert any(len(render or []) == 2 and "|||" in render[0] for render in plain if render)


@pytest.mark.parametrize("key", RENDERS)
def test_renders_are_promptsources(key: str) -> None:
    name, _, truncated = key.partition("/")
    given = TEMPLATES[name]
    template = PromptTemplate(given["jinja"], given["answer_choices"], 2048 if truncated else None, name)
    for number, (row, want) in enumerate(zip(ROWS, RENDERS[key], strict=True)):
        row_json = json.dumps(row).encode()
        if want is None:
            with pytest.raises(TemplateError):
                template.parts(row_json, 0, number)
        else:
            assert template.parts(row_json, 0, number) == want
