"""A run's files, cut anywhere or holding anything: there is a page and a card, and never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import PageParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import make_run

from alignite.evaluation.report.card import write_card
from alignite.evaluation.report.page import write_report

FILES = ["config.yaml", "metrics.jsonl", "history.jsonl", "data.json", "samples.jsonl"]
FILES += ["checkpoint-12/state.json", "checkpoint-12/MANIFEST.json"]


def page(run: Path) -> str:
    write_report([run], run / "report.html")
    write_report([run, run / "checkpoint-6" / ".."], run / "both.html")
    write_card(run, run, kind="adapter", base_model="org/base")
    return PageParser((run / "report.html").read_text()).text


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", 12, eval_every=3)
    content = (run / name).read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        (run / name).write_bytes(content[: int(share * len(content))])
        assert "alignite run" in page(run)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [b"\x00" * 64, b"[" * 200_000, b"\xff\xfe\xff", b"null\n", b"3\n", b"{}\n", b'"x"\n']
)
def test_a_file_that_holds_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    run = make_run(tmp_path / "run", 12)
    (run / name).write_bytes(content)
    assert "alignite run" in page(run)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["step", "time", "loss", "eval_loss", "event", "versions", "machine", "outcome", "reason", "kind", "prompt"]
KEYS += ["answer", "reference", "train", "eval", "rows", "dropped", "fill", "examples", "best", "files", "grad_norm"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=8), min_size=1, max_size=4))
def test_any_json_in_any_file(tmp_path: Path, objects: list[dict[str, Any]]) -> None:
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    make_run(run, 12)
    written = "".join(json.dumps(value) + "\n" for value in objects)
    for name in ("metrics.jsonl", "history.jsonl", "samples.jsonl"):
        (run / name).write_text(written)
    whole = objects[0]
    (run / "data.json").write_text(json.dumps({"train": whole, "eval": {"dropped": whole, "truncated": {"x": whole}}}))
    (run / "checkpoint-12" / "state.json").write_text(json.dumps({"best": whole}))
    (run / "checkpoint-12" / "MANIFEST.json").write_text(json.dumps({"files": {"a": whole}}))
    (run / "adapter_config.json").write_text(json.dumps({"r": objects, "lora_alpha": 1}))
    (run / "config.yaml").write_text(json.dumps(whole))
    assert "alignite run" in page(run)
