"""Bad and odd rows of every kind under every method that takes them, through the command line: none goes uncounted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignite.cli.main import main
from alignite.config import PrepareConfig, PreviewConfig
from alignite.data import ChatTokenizer, prepare, preview
from alignite.errors import DataError

Row = dict[str, Any]

PAIR: Row = {"prompt": "q", "chosen": "yes it is", "rejected": "no"}
RANKED: Row = {"prompt": "q", "completions": ["a", "b", "c"], "scores": [2, 1, 0]}
LABELLED: Row = {"prompt": "q", "completion": "a", "label": True}
STEPWISE: Row = {"prompt": "q", "completions": ["One.", "Two."], "labels": [True, False]}


def without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


# By what is wrong: the row, the part of the report that counts it, and a word of the reason.
PAIRS: dict[str, tuple[Row, str, str]] = {
    "no chosen": (without(PAIR, "chosen"), "dropped", "chosen"),
    "no rejected": (without(PAIR, "rejected"), "dropped", "rejected"),
    "null rejected": (PAIR | {"rejected": None}, "dropped", "rejected"),
    "equal sides": (PAIR | {"rejected": PAIR["chosen"]}, "dropped", "are the same"),
    "empty chosen": (PAIR | {"chosen": ""}, "dropped", "an empty reply"),
    "blank rejected": (PAIR | {"rejected": " \n"}, "dropped", "an empty reply"),
    "a side of another type": (PAIR | {"rejected": 3}, "dropped", "number"),
    "a side of messages, one of text": (
        PAIR | {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        "dropped",
        "",
    ),
    "unparsable margin": (PAIR | {"margin": "much"}, "dropped", "margin"),
    "huge margin": (PAIR | {"margin": 1e300}, "dropped", "float32"),
    "negative margin": (PAIR | {"margin": -1.0}, "noticed", "below 0"),
    "p of another type": (PAIR | {"p": [1]}, "dropped", "p is"),
    "p beyond 1": (PAIR | {"p": 1.5}, "dropped", "between 0 and 1"),
    "tie": (PAIR | {"p": 0.5}, "noticed", "a tie"),
    "the other is likelier": (PAIR | {"p": 0.25}, "noticed", "rejected reply is the better"),
}
RANKINGS: dict[str, tuple[Row, str, str]] = {
    "no scores": (without(RANKED, "scores"), "dropped", "scores"),
    "null scores": (RANKED | {"scores": None}, "dropped", "scores"),
    "one reply": (RANKED | {"completions": ["a"], "scores": [1]}, "noticed", "one reply"),
    "no reply": (RANKED | {"completions": [], "scores": []}, "dropped", "empty list"),
    "all tie": (RANKED | {"scores": [1, 1, 1]}, "noticed", "all tie"),
    "tie of float32 alone": (
        RANKED | {"completions": ["a", "b"], "scores": [16777216, 16777217]},
        "noticed",
        "all tie",
    ),
    "some tie": (RANKED | {"scores": [1, 0, 0]}, "noticed", "with ties"),
    "fewer scores": (RANKED | {"scores": [1, 0]}, "dropped", "3 items"),
    "unparsable score": (RANKED | {"scores": [1, "N/A", 0]}, "dropped", "not a number"),
    "null score": (RANKED | {"scores": [1, None, 0]}, "dropped", "not a number"),
    "NaN": (RANKED | {"scores": [1, float("nan"), 0]}, "dropped", ""),
    "huge score": (RANKED | {"scores": [1, 1e300, 0]}, "dropped", "float32"),
    "a score of another type": (RANKED | {"scores": [1, True, 0]}, "dropped", "not a number"),
    "empty reply": (RANKED | {"completions": ["a", "", "c"]}, "dropped", "an empty reply"),
    "a reply of another type": (RANKED | {"completions": ["a", 2, "c"]}, "dropped", "number"),
    "the same reply twice": (RANKED | {"completions": ["a", "a", "c"], "scores": [1, 1, 0]}, "noticed", "twice"),
    "one reply, two scores": (RANKED | {"completions": ["a", "b", "a"]}, "noticed", "two ways"),
}
LABELS: dict[str, tuple[Row, str, str]] = {
    "no label": (without(LABELLED, "label"), "dropped", "label"),
    "null label": (LABELLED | {"label": None}, "dropped", "label"),
    "a number that is none": (LABELLED | {"label": 2}, "dropped", "label"),
    "a word that is none": (LABELLED | {"label": "maybe"}, "dropped", "label"),
    "a list": (LABELLED | {"label": [True]}, "dropped", "label"),
    "no completion": (without(LABELLED, "completion"), "dropped", "completion"),
    "empty completion": (LABELLED | {"completion": " "}, "dropped", "an empty reply"),
    "a completion of another type": (LABELLED | {"completion": 3}, "dropped", "number"),
}
STEPS: dict[str, tuple[Row, str, str]] = {
    "no labels": (without(STEPWISE, "labels"), "dropped", "labels"),
    "fewer labels": (STEPWISE | {"labels": [True]}, "dropped", "2 items"),
    "a label that is none": (STEPWISE | {"labels": [True, 3]}, "dropped", "labels[1] is 3"),
    "a word": (STEPWISE | {"labels": ["good", "bad"]}, "dropped", "labels[0]"),
    "null label": (STEPWISE | {"labels": [True, None]}, "dropped", "labels[1] is null"),
    "no step": (STEPWISE | {"completions": [], "labels": []}, "dropped", "empty list"),
    "an empty step": (STEPWISE | {"completions": ["One.", " "]}, "dropped", "an empty step"),
    "a step of another type": (STEPWISE | {"completions": ["One.", 2]}, "dropped", "number"),
    "all neutral": (STEPWISE | {"labels": [0, 0]}, "noticed", "all neutral"),
}
KINDS = {
    "pairs": (PAIR, PAIRS),
    "rankings": (RANKED, RANKINGS),
    "labels": (LABELLED, LABELS),
    "steps": (STEPWISE, STEPS),
}
# They read well, so they are left out whatever on_bad_row says.
READABLE = {
    "empty chosen", "blank rejected", "huge margin", "huge score", "empty reply", "empty completion", "an empty step"
}  # fmt: skip
# The rows that each method takes.
COMMANDS: list[tuple[str, str]] = [
    *((command, kind) for command in ("reward", "dpo", "rrhf", "slic") for kind in ("pairs", "rankings")),
    *(("preference --objective stable_alignment", kind) for kind in ("pairs", "rankings")),
    ("preference --objective figa", "pairs"),
    ("preference --objective contrast", "rankings"),
    ("preference --objective kto", "labels"),
    ("preference --objective quark --num_quantiles 0", "labels"),
    ("prm", "steps"),
]
Run = Callable[[str, str], tuple[dict[str, Any], str, Path]]


@pytest.fixture(scope="module")
def run_of(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of each command over all bad rows of a kind behind good ones: its data.json, its output, the file."""
    made: dict[tuple[str, str], tuple[dict[str, Any], str, Path]] = {}

    def run(command: str, kind: str) -> tuple[dict[str, Any], str, Path]:
        if (command, kind) not in made:
            folder = tmp_path_factory.mktemp("rows")
            file = folder / "rows.jsonl"
            good, bad = KINDS[kind]
            rows = [good] * 20 + [row for row, _, _ in bad.values()]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            words = [*command.split(), "--model", str(tiny_model_folder), "--data", str(file)]
            words += ["--output_dir", str(folder / "run"), "--max_steps", "1", "--num_samples", "0", "--use_peft"]
            with pytest.MonkeyPatch.context() as patch:
                lines: list[str] = []
                patch.setattr("alignite.cli.train.stderr", lines.append)
                assert main(words) == 0
            report = json.loads((folder / "run" / "data.json").read_text())["train"]
            made[command, kind] = report, "\n".join(lines), file
        return made[command, kind]

    return run


CASES = [(command, kind, what) for command, kind in COMMANDS for what in KINDS[kind][1]]


@pytest.mark.parametrize(("command", "kind", "what"), CASES)
def test_every_bad_row_is_counted_under_every_method(command: str, kind: str, what: str, run_of: Run) -> None:
    report, said, file = run_of(command, kind)
    _, bucket, word = KINDS[kind][1][what]
    place = f"{file}:{21 + list(KINDS[kind][1]).index(what)}"
    found = [reason for reason, entry in report[bucket].items() if word in reason and place in entry["examples"]]
    assert len(found) == 1, (place, report["dropped"], report["noticed"])
    assert found[0] in said
    assert report["rows"] == report["used"] + sum(entry["count"] for entry in report["dropped"].values())
    used = sum(part == "noticed" for _, part, _ in KINDS[kind][1].values())
    assert report["used"] == 20 + used


@pytest.mark.parametrize(
    ("kind", "what"),
    [(kind, what) for kind in KINDS for what, (_, part, _) in KINDS[kind][1].items() if part != "noticed"],
)
def test_a_bad_row_ends_the_work_where_that_is_asked_for(
    kind: str, what: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    good, bad = KINDS[kind]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [good, good, bad[what][0]]))
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    kinds = {"pairs": "preference", "rankings": "ranking", "labels": "unpaired", "steps": "steps"}[kind]
    if what in READABLE:
        report = prepare(file, tokenizer, PrepareConfig(on_bad_row="error"), tmp_path / "set", kinds=(kinds,)).report
        assert [entry["examples"] for entry in report["dropped"].values()] == [[f"{file}:3"]]
        return
    with pytest.raises(DataError) as error:
        prepare(file, tokenizer, PrepareConfig(on_bad_row="error"), tmp_path / "set", kinds=(kinds,))
    assert f"{file}:3" in str(error.value)


@pytest.mark.parametrize(
    ("command", "rows", "said"),
    [
        ("dpo", [RANKED | {"scores": [1, 1, 1]}, RANKED | {"completions": ["a"], "scores": [0]}], "learns nothing"),
        ("reward", [RANKED | {"scores": [1, 1, 1]}] * 3, "3 rows: a ranking whose replies all tie"),
        ("preference --objective orpo", [RANKED | {"scores": [0, 0, 0]}], "learns nothing"),
        ("prm --neutral ignore", [STEPWISE | {"labels": [0, 0]}], "all neutral"),
    ],
)
def test_a_set_that_teaches_a_method_nothing_is_an_error(
    command: str, rows: list[Row], said: str, tiny_model_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*command.split(), "--model", str(tiny_model_folder), "--data", str(file), "--max_steps", "1"]
    assert main([*words, "--output_dir", str(tmp_path / "run")]) == 3
    error = capsys.readouterr().err
    assert said in error
    assert f"{file}:1" in error


def test_what_a_method_makes_of_odd_rows_is_told(run_of: Run) -> None:
    for command, meant in {
        "dpo": "compares nothing: nothing is learned from it",
        "rrhf": "compares nothing: it is imitated only",
        "preference --objective contrast": "counts as the prompt's own",
    }.items():
        assert meant in run_of(command, "rankings")[1]
    assert "rejected reply is the better one (first" in run_of("dpo", "pairs")[1]
    said = run_of("dpo", "rankings")[1]
    ((used, teaching),) = re.findall(r"data: (\d+) of \d+ rows \(ranked\), (\d+) of which teach", said)
    idle = re.findall(r"  used: (\d+) row.*nothing is learned from it", said)
    assert int(used) - int(teaching) == sum(map(int, idle)) > 0
    assert re.search(r"  dropped: \d+ row", said)
    assert "of which teach" not in run_of("rrhf", "rankings")[1]
    assert "rejected reply is the better one: this method does not read p" in run_of("rrhf", "pairs")[1]


def test_replies_are_compared_as_the_template_writes_them(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    assert tokenizer.chat_template is not None
    trimming = replace(
        tokenizer,
        chat_template=tokenizer.chat_template.replace("message.content", "message.content | trim").replace(
            "message['content']", "message['content'] | trim"
        ),
    )
    rows = [PAIR, PAIR | {"rejected": PAIR["chosen"] + " "}]
    assert prepare(rows, tokenizer, PrepareConfig(), tmp_path / "as").report["used"] == 2
    report = prepare(rows, trimming, PrepareConfig(), tmp_path / "trimmed").report
    assert report["dropped"] == {"the two replies are the same tokens": {"count": 1, "examples": ["row:2"]}}
    seen = preview(rows, trimming, PreviewConfig()).report
    assert seen["dropped"] == report["dropped"]


def test_labels_that_a_method_does_not_read_are_counted(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [LABELLED | {"label": n != 1} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", str(tiny_model_folder), "--data", str(file), "--max_steps", "1", "--num_samples", "0"]
    for name, is_told in (("quark", True), ("kto", False)):
        run = tmp_path / name
        marked = ["--num_quantiles", "0"] if name == "quark" else []
        assert main(["preference", "--objective", name, *words, *marked, "--output_dir", str(run), "--use_peft"]) == 0
        told = (
            "1 row: a reply labelled bad: this method does not read labels and imitates it" in capsys.readouterr().err
        )
        assert told == is_told
        noticed = json.loads((run / "data.json").read_text())["train"]["noticed"]
        assert [entry["examples"] for entry in noticed.values()] == ([[f"{file}:2"]] if is_told else [])


def test_margins_that_a_method_does_not_read_are_counted(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "margin": n} for n in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["--model", str(tiny_model_folder), "--data", str(file), "--max_steps", "1", "--num_samples", "0"]
    unread = "2 rows: a pair with a margin: this method does not read it"
    for name, more, told in (
        ("simpo", [], unread),
        ("slic", [], unread),
        ("slic", ["--kind", "margin"], None),
        ("dpo", ["--loss_type", "ipo"], "2 rows: a pair with a margin: of the losses only sigmoid reads it"),
        ("dpo", [], None),
    ):
        run = tmp_path / "-".join([name, *more])
        assert main(["preference", "--objective", name, *words, *more, "--output_dir", str(run), "--use_peft"]) == 0
        shown = capsys.readouterr().err
        assert (told is None and "margin:" not in shown) or (told is not None and told in shown)
        noticed = json.loads((run / "data.json").read_text())["train"]["noticed"]
        assert [entry["examples"] for entry in noticed.values()] == ([[f"{file}:2", f"{file}:3"]] if told else [])
