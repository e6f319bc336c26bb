"""The page: what it says is what the run's files say, whatever they hold, and it looks as it should."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import browser
import pytest
from browser import Browser, Page, PageParser
from run_folders import VERSIONS, event, lines, make_run, start

from alignite.errors import UsageError
from alignite.evaluation.report.page import write_report

HOSTILE = "나비 </style><script>alert(1)</script> \"'`&amp; \u202e\x00"


def read(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def page_of(*runs: Path) -> PageParser:
    output = runs[0].parent / "page.html"
    write_report(runs, output)
    return PageParser(output.read_text())


def row(page: PageParser, name: str, table: int | None = None) -> list[str]:
    tables = page.tables if table is None else [page.tables[table]]
    found = [cells for rows in tables for cells in rows if cells[0].split("\n")[0] == name]
    assert found, f"no row {name!r}"
    return found[0]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run that was killed at 40, resumed, killed again, and failed; its names are hostile."""
    history = [
        start(),
        event("save", 40, 40, folder="checkpoint-40"),
        start("resume", 40, 90, torch="2.14.0"),
        event("save", 80, 130, folder="checkpoint-80"),
        start("resume", 80, 200, torch="2.14.0"),
        event("end", 120, 240, outcome="failed", reason="the loss of update 121 is not finite <b>"),
    ]
    samples = [
        {"step": 0, "kind": "before", "prompt": HOSTILE, "answer": "", "reference": None},
        {"step": 120, "kind": "after", "prompt": HOSTILE, "answer": "저는 나비입니다.", "reference": "나비예요."},
        {"step": 0, "kind": "before", "prompt": "half", "answer": "\ud800 lone", "reference": None},
    ]
    return make_run(
        tmp_path / "죽은 <i>run", 120, history=history, samples=samples, config={"data": [f"{HOSTILE[:30]}.jsonl"]}
    )


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [
        make_run(tmp_path / "a" / "run"),
        make_run(tmp_path / "b" / "run", 90, config={"lora_r": 32}, speed=0.05),
        make_run(tmp_path / "full", 60, config={"use_peft": False}, speed=0.01),
    ]


def test_the_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = page_of(run)
    found = read(run / "metrics.jsonl")
    train = [line for line in found if "loss" in line]
    held_out = [line for line in found if "eval_loss" in line]
    for name in ("loss", "mean_token_accuracy"):
        assert f"{train[-1][name]:#.4g} at update 60; {train[0][name]:#.4g} at 1" in page.text
    assert f"Held-out loss {held_out[-1]['eval_loss']:#.4g} at update 60" in page.text
    assert "Updates 60 3 epochs" in page.text
    assert f"Tokens read {train[-1]['num_tokens']:,.0f}" in page.text
    speeds = sorted(line["tokens_per_second"] for line in train)
    assert f"Throughput {(speeds[29] + speeds[30]) / 2:,.0f} tokens per second, median" in page.text
    assert "Time 1 min 02 s" in page.text
    evaluations = next(rows for rows in page.tables if rows[0][0] == "update")
    assert evaluations[0] == ["update", "eval_loss", "eval_mean_token_accuracy", "eval_entropy"]
    assert [cells[1] for cells in evaluations[1:]] == [f"{line['eval_loss']:#.4g}" for line in held_out]
    assert [cells[0] for cells in evaluations[1:]] == ["10", "20", "30 best", "40", "50", "60"]


def test_data_configuration_history_and_samples_are_there(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run", config={"lora_r": 4, "seed": 7}))
    assert row(page, "scored tokens")[1] == "81,204 (40.9%)"
    assert row(page, "rows")[1:] == ["1,250", "50"]
    assert ["training: left out", "nothing to train on", "9", "0.7%", "rows.jsonl:3"] in page.tables[2]
    assert ["training: cut", "cut to max_length", "4", "0.3%", "rows.jsonl:17, rows.jsonl:230"] in page.tables[2]
    changed = next(rows for rows in page.tables if rows[0] == ["option", "value", "default"])
    assert ["seed", "7", "42"] in changed
    assert ["learning_rate", "0.0002", "2e-05"] in changed
    assert "weight_decay" not in [cells[0] for cells in changed]
    everything = next(rows for rows in page.tables if rows[0] == ["option", "value", "meaning"])
    values = {cells[0]: cells[1] for cells in everything}
    assert (values["seed"], values["weight_decay"]) == ("7 changed", "0.0")
    assert row(page, "start")[2:] == ["0", "60", "1 min 02 s", "finished"]
    assert row(page, "checkpoint-30 best")[2] == "3.4 MB"
    assert row(page, "torch")[1] == VERSIONS["torch"]
    assert "Before I am a language model. After I am Nabi. Reference I am Nabi." in page.text
    assert "Not in this report" not in page.text


def test_resumes_failures_and_hostile_text(killed: Path) -> None:
    page = page_of(killed)
    assert "죽은 <i>run Failed" in page.text
    assert "the loss of update 121 is not finite <b>" in page.text
    for words in ("resumed at 40", "resumed at 80", "failed"):
        assert words in page.text
    sessions = next(rows for rows in page.tables if rows[0][0] == "session")
    assert [cells[0] for cells in sessions[1:]] == ["start", "resume", "resume"]
    assert [cells[2] for cells in sessions[1:]] == ["0", "40", "80"]
    assert sessions[1][5] == "no end: killed, or still running"
    assert row(page, "torch")[1:] == ["2.13.0", "2.14.0"]
    assert "2 earlier checkpoints were deleted since." in page.text
    assert " ".join(HOSTILE.replace("\x00", "\ufffd").split()) in page.text
    assert "an empty answer" in page.text
    assert "not answered" in page.text
    scripts = [values for name, values in page.elements if name == "script"]
    assert [values for values in scripts if values.get("type") != "application/json"] == [{}]
    assert not [values for _, values in page.elements if any(key.startswith("on") or key == "style" for key in values)]


def test_nothing_comes_from_elsewhere_and_only_our_script_may_run(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    write_report([make_run(tmp_path / "run")], output)
    html = output.read_text()
    page = PageParser(html)
    for name, values in page.elements:
        for key in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert values.get(key) in (None, "data:,"), (name, values)
    assert not re.search(r"https?:|url\(|@import", html)
    policy = next(values["content"] for _, values in page.elements if values.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(content) == 1
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()}'" in policy


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("one", "two"):
        write_report([run], tmp_path / f"{name}.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_several_runs_stand_side_by_side(three: list[Path]) -> None:
    page = page_of(*three)
    final = next(rows for rows in page.tables if rows[0][1:] == ["a/run", "b/run", "full"] and rows[0][0] == "")
    losses = [[line["loss"] for line in read(run / "metrics.jsonl") if "loss" in line][-1] for run in three]
    cells = next(cells for cells in final if cells[0] == "Training loss")
    assert [cell.split("at update")[0] for cell in cells[1:]] == [f"{loss:#.4g}" for loss in losses]
    config = next(rows for rows in page.tables if rows[0][0] == "option")
    differing = {cells[0]: cells[1:] for cells in config[1:]}
    assert differing["lora_r"] == ["8", "32", "8"]
    assert differing["use_peft"] == ["true", "true", "false"]
    assert differing.keys() == {"output_dir", "max_steps", "lora_r", "use_peft"}
    blocks = re.findall(
        r'<script type="application/json">(.*?)</script>', (three[0].parent.parent / "a" / "page.html").read_text()
    )
    curves = {curve["name"]: curve["values"] for curve in json.loads(blocks[0])["curves"]}
    assert list(curves) == [f"{name}{kind}" for name in ("a/run", "b/run", "full") for kind in ("", ", held-out")]
    assert curves["b/run"][-1] == float(f"{losses[1]:.4g}")


def test_how_many_runs_may_be_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 3)
    for runs in ([], [make_run(tmp_path / f"r{n}", 3) for n in range(25)]):
        with pytest.raises(UsageError, match="runs are given"):
            write_report(runs, tmp_path / "page.html")
    write_report([run, run], tmp_path / "page.html")  # the same one twice is one
    assert "Configuration" in (tmp_path / "page.html").read_text()


def test_nulls_are_gaps_and_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 40, eval_every=0)
    found = read(run / "metrics.jsonl")
    for index in (10, 11, 39):
        found[index]["loss"] = None  # type: ignore[assignment]
    lines(run / "metrics.jsonl", found)
    page = page_of(run)
    assert "3 numbers in metrics.jsonl are not finite" in page.text
    assert "Training loss – at update 40" in page.text
    paths = [values["d"] for name, values in page.elements if name == "path" and "faint c0" in (values["class"] or "")]
    assert paths[0] is not None
    assert paths[0].count("M") == 2


def test_empty_metrics_still_make_a_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("")
    page = page_of(run)
    assert "Configuration" in page.text
    assert "Curves" not in page.text
    lines(run / "metrics.jsonl", [{"step": 1, "time": 1.0, "loss": None}])
    assert "No finite value was logged." in page_of(run).text


def test_a_long_run_keeps_its_spikes_and_stays_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 12_000, eval_every=500, speed=0.001)
    found = read(run / "metrics.jsonl")
    spike = next(line for line in found if line["step"] == 7321 and "loss" in line)
    spike["loss"] = 7.5
    lines(run / "metrics.jsonl", found)
    output = tmp_path / "page.html"
    write_report([run], output)
    html = output.read_text()
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', html)[0])
    training = dict(zip(data["curves"][0]["steps"], data["curves"][0]["values"], strict=True))
    assert training[7321] == 7.5
    assert len(training) <= 2002
    assert len(html) < 700_000


def test_the_page_as_it_is_shown(
    killed: Path, three: list[Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In Chromium where one is installed, else by html.parser; the terminal's summary says which it was."""
    one, several = tmp_path / "one.html", tmp_path / "several.html"
    write_report([killed], one)
    write_report(three, several)
    program = browser.find()
    record_property("report page", f"rendered by {program}" if program else "parsed: no Chromium is installed")
    pages: dict[tuple[Path, int, str], Page] = {}
    if program is not None:
        with Browser(program, tmp_path / "home") as shown:
            for file in (one, several):
                for width in (400, 1200):
                    for scheme in ("light", "dark"):
                        pages[file, width, scheme] = shown.show(file, width, scheme)
    else:
        for file in (one, several):
            pages[file, 0, ""] = Page(text=PageParser(file.read_text()).text)
    for (file, width, scheme), page in pages.items():
        text = " ".join(page.text.split())
        for words in (
            ("Failed", "저는 나비입니다.", "</style><script>alert(1)</script>") if file == one else ("a/run", "full")
        ):
            assert words in text
        for words in ("Curves", "Loss", "Learning rate", "Gradient norm", "Throughput", "Token accuracy", "Entropy"):
            assert words in text
        if program is not None:
            _check_layout(page, width, scheme, file)


def _check_layout(page: Page, width: int, scheme: str, file: Path) -> None:
    assert page.errors == []
    assert page.requests == [file.as_uri()]
    assert page.overflow == 0
    assert len(page.charts) == 6
    for left, _, wide, high in page.charts:
        assert left >= 0
        assert left + wide <= width
        assert wide > 200
        assert high > 100
    assert page.lines
    assert all(wide > 50 for _, _, wide, _ in page.lines)
    assert all(left >= 0 and left + wide <= width for left, _, wide, _ in page.ticks)
    # The style sheet was let through: curves have a colour, and the paper is the scheme's.
    assert all(stroke.startswith("rgb") for stroke in page.strokes)
    paper = [int(part) for part in re.findall(r"\d+", page.paper)]
    assert (sum(paper) > 600) == (scheme == "light")
    assert "update " in page.tip
    assert re.search(r" \d\.\d{3}", page.tip)


def test_the_spoken_summary_of_a_chart(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    said = [values["aria-label"] for name, values in page.elements if name == "svg" and values.get("role") == "img"]
    assert len(said) == 6
    assert said[0] is not None
    assert said[0].startswith("Loss. training: from 3.300 at update 1 to ")
    assert not math.isnan(float(said[0].split("from ")[1].split()[0]))
