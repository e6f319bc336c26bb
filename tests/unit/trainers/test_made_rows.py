"""Objectives that make their rows of the data: what is written, counted and refused, and that a run goes on."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignite.cli.main import main
from alignite.config.preference import METHOD_CONFIGS, QuarkConfig
from alignite.errors import ConfigError, DataError, UsageError
from alignite.objectives.coh import CoHObjective
from alignite.objectives.registry import make_objective
from alignite.trainers.made_rows import make_rows, unmade, unread

RANKED = [{"prompt": f"q{n}", "completions": [f"a{n}", f"b{n}", "c"], "scores": [1.0, 0.5, n]} for n in range(4)]
TIED = {"prompt": "q", "completions": ["a", "b"], "scores": [1.0, 1.0]}
HH = {"chosen": "\n\nHuman: hi\n\nAssistant: yo", "rejected": "\n\nHuman: hi\n\nAssistant: no"}


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(name: str, data: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    config = METHOD_CONFIGS[name](**options)
    output, _ = make_rows(data, make_objective(name), config, folder / "out.jsonl")  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    return written(output)


def test_rankings_of_one_reply_are_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on Quark makes them of rows of one rated reply."""
    page = Path(__file__).parent.parent.parent.parent / "docs" / "methods" / "quark.md"
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        exec(block, {})
    output, _ = make_rows(
        "scored.jsonl", make_objective("quark", num_quantiles=2), QuarkConfig(), tmp_path / "out.jsonl"
    )
    assert [(row["prompt"], row["completion"]) for row in written(output)] == [
        ("<rwd_0>Say hello.", "Hello!"),
        ("<rwd_1>Say hello.", "Go away."),
    ]


def test_rows_of_files_of_any_format(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "hh.jsonl.gz", "wt") as file:
        file.write(json.dumps(HH) + "\n")
    (row, *others) = made("coh", str(tmp_path / "hh.jsonl.gz"), tmp_path)
    assert [message["content"] for message in row["messages"]] == ["hi\nA helpful answer:", "yo"]
    assert len(others) == 3
    assert len(made("coh", RANKED, tmp_path)) == 16
    assert [row["prompt"] for row in made("quark", RANKED, tmp_path)][:3] == ["<rwd_0>q0", "<rwd_2>q0", "<rwd_4>q0"]
    assert len(made("hir", RANKED, tmp_path)) == 12
    renamed = [{"question": "q", "completions": ["a", "b"], "scores": [1, 0]}]
    assert len(made("coh", renamed, tmp_path, format="ranked", prompt_column="question")) == 4


def test_rows_that_make_none_are_counted_or_raised(tmp_path: Path) -> None:
    unasked = {**RANKED[0], "prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    assert len(made("coh", [TIED, unasked, *RANKED], tmp_path)) == 16
    lost = unmade(tmp_path / "out.jsonl")
    assert {reason: entry["count"] for reason, entry in lost.items()} == dict.fromkeys(lost, 1)
    assert [entry["examples"] for entry in lost.values()] == [["row:1"], ["1 of 6 rows"]]
    assert "a prompt does not end with a user message" in lost
    for row in (TIED, unasked):
        with pytest.raises(DataError):
            made("coh", [row, *RANKED], tmp_path, on_bad_row="error")
    with pytest.raises(DataError, match="no row is left"):
        made("coh", [unasked], tmp_path)


def test_rows_of_which_none_can_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CoHObjective makes its rows of preference rows"):
        made("coh", [{"prompt": "q", "completion": "a", "label": True}], tmp_path)
    with pytest.raises(UsageError, match="QuarkObjective makes its rows of ranked rows"):
        made("quark", [{"prompt": "q", "completion": "a", "label": True}], tmp_path)


def test_the_command_line_trains_on_what_is_made_and_goes_on(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "ranked.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in [*RANKED, TIED]))
    words = ["preference", "--objective", "coh", "--model", str(tiny_model_folder), "--data", str(data)]
    words += ["--eval_data", str(data), "--output_dir", str(run), "--use_peft", "--num_samples", "0", "--json"]
    words += ["--good", "Good:", "--forms", "pn", "np"]
    assert main([*words, "--max_steps", "2", "--save_steps", "1"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)["data"]
    assert report["used"] == 8
    assert [entry["count"] for entry in report["unmade"].values()] == [1]
    assert f"makes none: 1 row: {next(iter(report['unmade']))} (first: {data}:5)" in shown.err
    assert json.loads((run / "data.json").read_text())["train"]["unmade"] == report["unmade"]
    assert len(written(run / "prepared-rows.jsonl")) == len(written(run / "prepared-eval-rows.jsonl")) == 8
    assert main([*words, "--max_steps", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 3
    data.write_text("".join(json.dumps(row) + "\n" for row in RANKED[:3]))
    assert main([*words, "--max_steps", "4"]) != 0
    assert "the data has changed since the checkpoint" in capsys.readouterr().err


def test_ties_of_rows_that_a_method_made_are_not_told(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "graded.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in RANKED))
    words = ["--model", str(tiny_model_folder), "--use_peft", "--max_steps", "1", "--num_samples", "0"]
    hir, contrast = tmp_path / "hir", tmp_path / "contrast"
    assert main(["preference", "--objective", "hir", *words, "--data", str(data), "--output_dir", str(hir)]) == 0
    assert "with ties" not in capsys.readouterr().err
    words += ["--data", str(hir / "prepared-rows.jsonl"), "--output_dir", str(contrast)]  # a user's own groups
    assert main(["preference", "--objective", "contrast", *words]) == 0
    assert "with ties, which are not compared: outputs of other instructions do" in capsys.readouterr().err


def test_rows_that_are_marked_already_are_taken_as_they_are(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "marked.jsonl"
    data.write_text(json.dumps({"prompt": "[0] q", "completion": "a", "label": True}) + "\n")
    words = ["preference", "--objective", "quark", "--num_quantiles", "0", "--model", str(tiny_model_folder)]
    words += ["--data", str(data), "--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--num_samples", "0"]
    assert main(words) == 0
    assert not (tmp_path / "run" / "prepared-rows.jsonl").exists()


def test_groups_must_come_in_one_update() -> None:
    with pytest.raises(UsageError, match="6 rows and group_size is 4"):
        METHOD_CONFIGS["hir"](per_device_train_batch_size=3, gradient_accumulation_steps=2).validate()
    assert CoHObjective.takes == "preference"


def test_weights_are_carried_and_rows_of_none_left_out(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    weighted = [{**pair, "weight": 0}, {**pair, "weight": 0.25}, pair]
    rows = made("coh", weighted, tmp_path, on_bad_row="error")[2::4]
    said = [[one.get("weight", 1) for one in row["messages"] if one["role"] == "assistant"] for row in rows]
    assert said == [[0.25, 0.25], [1, 1]]
    assert unmade(tmp_path / "out.jsonl") == {"a weight of 0": {"count": 1, "examples": ["1 of 3 rows"]}}
    ranked = [{**RANKED[0], "weight": 0}, {**RANKED[1], "weight": 2.0}, RANKED[2]]
    rows = made("hir", ranked, tmp_path)
    assert [row.get("weight", 1) for row in rows] == [2.0] * 3 + [1] * 3
    assert unmade(tmp_path / "out.jsonl")["a weight of 0"]["count"] == 1
    assert len(made("quark", ranked, tmp_path)) == 6
    assert unmade(tmp_path / "out.jsonl")["a weight of 0"]["count"] == 1
    assert {what: entry["count"] for what, entry in unread(tmp_path / "out.jsonl").items()} == {
        "a weight that this method does not read": 1
    }


def test_p_says_which_reply_of_a_pair_is_the_good_one(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    given = [{**pair, "p": p, "margin": 2.0} for p in (0.2, 0.5, 0.9)]
    rows = made("coh", given, tmp_path)[::4]
    assert [row["messages"][-1]["content"] for row in rows] == ["b", "a"]
    assert unmade(tmp_path / "out.jsonl") == {"a pair whose p is 1/2, a tie": {"count": 1, "examples": ["1 of 3 rows"]}}
    assert [entry["count"] for entry in unread(tmp_path / "out.jsonl").values()] == [3]


def test_the_report_of_a_run_tells_what_its_made_rows_do_not_say(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "ranked.jsonl"
    data.write_text("".join(json.dumps({**row, "weight": 3}) + "\n" for row in RANKED))
    words = ["preference", "--objective", "quark", "--model", str(tiny_model_folder), "--data", str(data)]
    words += ["--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--num_samples", "0", "--json"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["data"]["noticed"]["a weight that this method does not read"]["count"] == 4
    assert "a weight that this method does not read" in shown.err


def test_updates_hold_whole_groups_whatever_preparing_dropped(tiny_model_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completions": [f"answer {n}"], "scores": [n % 2]} for n in range(9)]

    def trained(name: str, rows: list[dict[str, Any]], *more: str) -> list[dict[str, Any]]:
        data, run = tmp_path / f"{name}.jsonl", tmp_path / name
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = ["preference", "--objective", "hir", "--model", str(tiny_model_folder), "--data", str(data)]
        words += ["--output_dir", str(run), "--num_samples", "0", "--max_length", "512", "--learning_rate", "1e-12"]
        words += ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--num_train_epochs", "1"]
        assert main([*words, *more]) == 0
        return written(run / "metrics.jsonl")

    whole = trained("whole", rows)
    # Of the first group the instruction of row 2 is too long; nine rows are a group of four and one of five.
    dropped = trained("dropped", [rows[0], {**rows[1], "prompt": "long " * 500}, *rows[2:]])
    assert [len(found) for found in (whole, dropped)] == [2, 2]
    for found in (*whole, *dropped):
        assert found["alone"] == 0
    assert dropped[1]["own_probability"] == pytest.approx(whole[1]["own_probability"], rel=1e-5)
    with pytest.raises(ConfigError, match="shuffle"):
        METHOD_CONFIGS["hir"](shuffle=True).validate()
