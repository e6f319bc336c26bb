"""``alignite mix``: rates, epochs, drawn rows, and mistakes with their place in the file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from alignite.cli.main import main
from alignite.data import Mixture

NESTED = """
temperature: 2
seed: 5
sources:
  flan:
    sources:
      tasks: {data: tasks.jsonl, weight: 3}
      cot: {data: [cot.jsonl.gz], weight: 1}
  chat: chat*.jsonl
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, count in (("tasks", 30), ("chat1", 6), ("chat2", 4)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"text": "{name} {n}"}}\n' for n in range(count)))
    with gzip.open(tmp_path / "cot.jsonl.gz", "wt") as file:
        file.write("".join(f'{{"text": "cot {n}"}}\n' for n in range(10)))
    return tmp_path


def test_shares_and_epochs_are_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mix.yaml").write_text(NESTED)
    assert main(["mix", "--mixture", "mix.yaml", "--total", "600", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    flan = Mixture({"tasks": 30, "cot": 10}, weights={"tasks": 3, "cot": 1})
    shares = Mixture({"flan": flan, "chat": 10}, temperature=2, seed=5).describe(600)
    assert found["sources"] == [vars(share) for share in shares]
    assert sum(source["documents"] for source in found["sources"]) == found["drawn"] == 600
    assert main(["mix", "--mixture", "mix.yaml"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("tasks", "cot", "chat", "50.00%", "33.33%", "epochs"))


def test_the_drawn_rows_are_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mix.yaml").write_text(NESTED)
    assert main(["mix", "--mixture", "mix.yaml", "--total", "200", "--output", "mixed.jsonl"]) == 0
    assert "wrote 200 rows" in capsys.readouterr().err
    names = [f"tasks {n}" for n in range(30)], [f"cot {n}" for n in range(10)], [f"chat1 {n}" for n in range(6)]
    rows = [*names[:2], names[2] + [f"chat2 {n}" for n in range(4)]]
    flan = Mixture({"tasks": 30, "cot": 10}, weights={"tasks": 3, "cot": 1})
    sources, indices = Mixture({"flan": flan, "chat": 10}, temperature=2, seed=5).draw(0, 200)
    drawn = Counter(rows[source][row] for source, row in zip(sources, indices, strict=True))
    written = [json.loads(line)["text"] for line in (folder / "mixed.jsonl").read_text().splitlines()]
    assert Counter(written) == drawn
    assert written == sorted(written, key=[name for part in rows for name in part].index)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


def test_sources_of_different_formats_are_written_in_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "gsm.jsonl").write_text("".join(f'{{"question": "q{n}", "answer": "a"}}\n' for n in range(150)))
    (folder / "t0.jsonl").write_text("".join(f'{{"inputs": "i{n}", "targets": "t", "id": 1}}\n' for n in range(50)))
    (folder / "mix.yaml").write_text("sources: {gsm: gsm.jsonl, t0: t0.jsonl}\n")
    assert main(["mix", "--mixture", "mix.yaml", "--output", "mixed.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    t0 = found["sources"][1]["documents"]
    assert (found["format"], found["rows"], found["lost"]) == ("messages", 200, {"column id": t0})
    assert found["formats"] == {"gsm": "question-answer", "t0": "inputs-targets"}
    rows = [json.loads(line)["messages"] for line in (folder / "mixed.jsonl").read_text().splitlines()]
    assert [row[1]["content"] for row in rows] == ["a"] * (200 - t0) + ["t"] * t0
    assert main(["mix", "--mixture", "mix.yaml", "--output", "mixed.jsonl"]) == 0
    printed = capsys.readouterr()
    assert all(word in printed.out for word in ("written as", "messages", "inputs-targets"))
    assert f"{t0} drawn rows lost column id" in printed.err
    # One format stays as it is; comparisons do not go into one file with conversations.
    (folder / "mix.yaml").write_text("sources: {gsm: gsm.jsonl, again: gsm.jsonl}\n")
    assert main(["mix", "--mixture", "mix.yaml", "--output", "mixed.jsonl"]) == 0
    assert "question" in (folder / "mixed.jsonl").read_text()
    (folder / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    (folder / "mix.yaml").write_text("sources: {gsm: gsm.jsonl, pairs: pairs.jsonl}\n")
    assert main(["mix", "--mixture", "mix.yaml", "--output", "mixed.jsonl"]) == 2
    assert "conversation and preference" in capsys.readouterr().err


def test_stages_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "stages:\n- {draws: 40, sources: {tasks: tasks.jsonl}}\n"
    text += "- {draws: 20, replay: 0.1, sources: {chat: chat1.jsonl}}\n"
    (folder / "mix.yaml").write_text(text)
    assert main(["mix", "--mixture", "mix.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["documents"], one["epochs"]) for one in found["sources"]] == [
        ("tasks", 42, 42 / 30),
        ("chat", 18, 3.0),
    ]


def test_a_mixture_that_ends_early_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mix.yaml").write_text("exhaust: drop\nsources: {chat: chat1.jsonl}\n")
    assert main(["mix", "--mixture", "mix.yaml", "--total", "9"]) == 0
    assert "6 of 9 draws" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: {a: [tasks.jsonl]}\ntemperatur: 2\n", "mix.yaml: temperatur: unknown key"),
        ("sources: {a: {data: tasks.jsonl, wight: 2}}\n", "mix.yaml: sources.a.wight: unknown key"),
        ("sources: {a: {sources: {b: {data: 3}}}}\n", "sources.a.sources.b.data: no data"),
        ("sources: {a: tasks.jsonl}\ncap: three\n", "mix.yaml: cap: cap is 'three'"),
        ("sources: {a: tasks.jsonl}\ncap: -1\n", "cap is -1"),
        ("sources: {a: tasks.jsonl}\nexhaust: again\n", "exhaust: exhaust is 'again'"),
        ("sources: {a: {data: tasks.jsonl, weight: 1}, b: chat1.jsonl}\n", "a weight is missing"),
        ("sources: {a: tasks.jsonl, b: {sources: {a: chat1.jsonl}}}\n", "sources.b.sources.a: the name has other data"),
        ("sources: {a: tasks.jsonl}\nunit: tokens\n", "tokens are not known"),
        ("sources:\n  a: tasks.jsonl\n  a: chat1.jsonl\n", "mix.yaml:3: 'a' stands twice"),
        ("sources: &a {a: *a}\n", "sources.a.a: unknown key"),
        ("sources: [a\n", "mix.yaml:2: the mixture is not YAML"),
        ("- a\n", "a mapping is missing"),
        ("stages: {draws: 3}\n", "stages: the stages are no list"),
        ("stages: [{sources: {a: tasks.jsonl}}]\n", "stages[0]: draws is 0"),
        ("stages: [{sources: {a: tasks.jsonl}, draws: 3, replay: 0.5}]\n", "stages[0]: no earlier stage"),
    ],
)
def test_mistakes_have_their_place(folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str) -> None:
    (folder / "mix.yaml").write_text(text)
    assert main(["mix", "--mixture", "mix.yaml"]) == 2
    assert words in capsys.readouterr().err


def test_no_source_is_overwritten_and_data_must_be_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mix.yaml").write_text(NESTED)
    before = (folder / "tasks.jsonl").read_bytes()
    assert main(["mix", "--mixture", "mix.yaml", "--output", "tasks.jsonl"]) == 2
    assert (folder / "tasks.jsonl").read_bytes() == before
    assert main(["mix", "--mixture", "mix.yaml", "--output", "out.csv"]) == 2
    assert main(["mix", "--mixture", "nowhere.yaml"]) == 2
    (folder / "mix.yaml").write_text("sources: {a: nowhere.jsonl}\n")
    assert main(["mix", "--mixture", "mix.yaml"]) == 3
    assert "nowhere.jsonl" in capsys.readouterr().err
