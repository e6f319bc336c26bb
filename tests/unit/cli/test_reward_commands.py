"""``alignite evaluate``, ``score`` and ``serve`` as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignite.cli.main import main
from alignite.client import HttpClient, RewardClient
from alignite.errors import DataError
from alignite.evaluation.reward import evaluate_reward
from alignite.models.reward_files import load_reward_model, save_reward_model
from alignite.models.score_head import set_score_scale
from alignite.scoring.process_reward import ProcessRewardModel
from alignite.scoring.reward import RewardModel

RANKED: list[dict[str, Any]] = [
    {"prompt": f"q{n}", "completions": ["a" * n, "bb", "c!"], "scores": [1, 0, 0], "category": "xy"[n % 2]}
    for n in range(1, 5)
]
MIXED: list[dict[str, Any]] = [
    {"prompt": "one", "completion": "a reply", "id": 7},
    {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "a reply"}]},
    {"prompt": "one", "completions": ["a reply", ""], "score": "kept"},
    {"prompt": "one", "chosen": "a reply", "rejected": "no"},
    {"chosen": "\n\nHuman: one\n\nAssistant: a reply", "rejected": "\n\nHuman: one\n\nAssistant: no"},
]
BAD = ["{bad", '{"x": 1}', '{"prompt": "q", "completions": []}', '{"prompt": "q", "completion": 5}',
       '{"messages": [{"role": "user", "content": "q"}]}']  # fmt: skip
STEPS: list[dict[str, Any]] = [
    {"prompt": f"{n} + 1?", "completions": ["I add", f"so {n}"], "labels": [1, 1 if n % 2 else -1], "category": "add"}
    for n in range(4)
]


def saved(base: Path, folder: Path, heads: int, seed: int) -> str:
    model = load_reward_model(base, heads, seed=seed)
    set_score_scale(model, [2.0] * heads, [0.5] * heads)
    save_reward_model(model, folder, base)
    return str(folder)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost such small models more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("models")
    heads = {"one": 1, "other": 1, "two": 2, "prm": 3}
    return {name: saved(tiny_model_folder, home / name, n, seed) for seed, (name, n) in enumerate(heads.items())}


def rows_file(path: Path, rows: list[dict[str, Any]], bad: list[str] | None = None) -> str:
    path.write_text("".join(f"{line}\n" for line in [*map(json.dumps, rows), *(bad or [])]))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(out, parse_constant=refuse)


def test_rows_of_every_kind_get_their_scores(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = rows_file(tmp_path / "rows.jsonl", MIXED, BAD), tmp_path / "out.jsonl"
    words = ["score", "--reward_model", models["one"], "--data", data, "--output"]
    assert main([*words, str(output)]) == 0
    printed = capsys.readouterr().out
    for line in range(6, 11):
        assert f"{data}:{line}" in printed
    found = read(output)
    wanted, no, empty = RewardModel.from_folder(models["one"]).score(["one"] * 3, ["a reply", "no", ""]).tolist()
    assert [row.keys() - given.keys() for row, given in zip(found, MIXED, strict=True)] == [
        {"score"}, {"score"}, {"scores", "best"}, *[{"score_chosen", "score_rejected"}] * 2,
    ]  # fmt: skip
    assert found[0] == {**MIXED[0], "score": pytest.approx(wanted, abs=1e-6)}
    assert found[1]["score"] == pytest.approx(wanted, abs=1e-6)
    assert found[2]["scores"] == pytest.approx([wanted, empty], abs=1e-6)
    assert found[2]["best"] == int(empty > wanted)
    for row in found[3:]:
        assert [row["score_chosen"], row["score_rejected"]] == pytest.approx([wanted, no], abs=1e-6)

    # Scored again: what was there stays under its own name, once.
    for number in (2, 3):
        target = tmp_path / f"out{number}.jsonl"
        report = result(capsys, "score", "--reward_model", models["other"], "--data", str(output), "--output",
                        str(target))  # fmt: skip
        assert (report["written"], report["replies"], report["bad"]) == (5, 8, {})
        assert read(target)[0]["given_score"] == found[0]["score"]
    assert main([*words, "-"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == found
    assert "rows written" in err


def test_several_models_and_heads_are_one_score_and_are_told_apart(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**row, "about_safety": n % 2 == 0} for n, row in enumerate(RANKED)]
    data = rows_file(tmp_path / "rows.jsonl", rows)
    texts = [row["prompt"] for row in rows for _ in range(3)], [reply for row in rows for reply in row["completions"]]
    one, other = (RewardModel.from_folder(models[name]).score(*texts) for name in ("one", "other"))
    two = RewardModel.from_folder(models["two"]).score(*texts)
    safe = np.repeat([True, False] * 2, 3)
    cases: dict[str, tuple[list[str], list[str], Any]] = {
        "mean": (["one", "other"], [], (one + other) / 2),
        "min": (["one", "two"], ["--combine", "min"], np.minimum(one, two.min(1))),
        "head": (["one", "two"], ["--combine", "weighted", "--weights", "1", "10", "--head", "1"],
                 one + 10 * two[:, 1]),
        "switch": (["one", "other"], ["--combine", "threshold", "--threshold", "-0.1", "--safety_column",
                                      "about_safety"], np.where(safe | (one < -0.1), one, other)),
    }  # fmt: skip
    for name, (chosen, more, wanted) in cases.items():
        output = tmp_path / f"{name}.jsonl"
        given = [models[model] for model in chosen]
        report = result(capsys, "score", "--reward_model", *given, "--data", data, "--output", str(output), *more)
        found = read(output)
        assert np.concatenate([row["scores"] for row in found]) == pytest.approx(wanted, abs=1e-6)
        assert list(found[0]["model_scores"]) == report["models"]
        assert found[0]["given_scores"] == [1, 0, 0]
        if name == "min":
            assert report["models"] == [models["one"], f"{models['two']}[0]", f"{models['two']}[1]"]
    output = tmp_path / "places.jsonl"
    given = [models["one"], models["other"]]
    result(capsys, "score", "--reward_model", *given, "--data", data, "--output", str(output), "--combine",
           "lexicographic", "--tolerance", "100")  # fmt: skip
    for number, row in enumerate(read(output)):  # the sign of the first model's scores, then the second's order
        some = slice(3 * number, 3 * number + 3)
        assert row["scores"] == np.argsort(np.lexsort((other[some], one[some] >= 0))).tolist()


def test_pairs_and_rankings_are_evaluated(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*RANKED, {"prompt": "t", "completions": ["a", "b"], "scores": [1, 1]}]
    data = rows_file(tmp_path / "rows.jsonl", rows, BAD[:2])
    wanted = evaluate_reward(RewardModel.from_folder(models["one"]), rows).to_dict()
    found = result(capsys, "evaluate", "--reward_model", models["one"], "--data", data, "--output",
                   str(tmp_path / "scores.jsonl"))  # fmt: skip
    assert found["accuracy"] == pytest.approx(wanted["accuracy"])
    assert found["categories"]["x"]["pairs"] == 4
    assert found["best_of_n"] == {str(n): pytest.approx(value) for n, value in wanted["best_of_n"].items()}
    assert (found["no_pair"], sum(found["skipped"].values())) == (1, 2)
    scores = read(tmp_path / "scores.jsonl")
    assert [row["row"] for row in scores] == [f"{data}:{n}" for n in range(1, 6)]
    assert scores[0]["values"] == [1, 0, 0]

    assert main(["evaluate", "--reward_model", models["one"], "--data", data]) == 0
    printed = capsys.readouterr().out
    for said in (
        "accuracy",
        "95 % interval",
        "ECE",
        "within pairs",
        "best of",
        "category",
        f"{data}:6",
        "1 row is a tie",
    ):
        assert said in printed

    several = result(capsys, "evaluate", "--reward_model", models["one"], models["two"], "--data", data)
    assert list(several["models"]) == [models["one"], f"{models['two']}[0]", f"{models['two']}[1]"]
    assert several["models"][models["one"]]["accuracy"] == found["accuracy"]
    assert 0 <= several["agreement"]["disagreement"] <= 1
    chosen = result(capsys, "evaluate", "--reward_model", models["two"], "--head", "1", "--data", data)
    assert chosen["accuracy"] == several["models"][f"{models['two']}[1]"]["accuracy"]
    # Lengths that do not differ have no correlation, which JSON calls null.
    same = rows_file(tmp_path / "same.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    assert result(capsys, "evaluate", "--reward_model", models["one"], "--data", same)["length"]["pearson"] is None


def test_a_row_about_a_criterion_is_judged_by_its_head(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    abouts = ["kind", "true", 0, 1, None, "blue", 2, True]
    rows: list[dict[str, Any]] = [
        {"prompt": f"q{n}", "chosen": "a" * n, "rejected": "b" * (8 - n), "criterion": about}
        for n, about in enumerate(abouts, start=1)
    ]
    data = rows_file(tmp_path / "rows.jsonl", rows)
    words = ["evaluate", "--reward_model", models["two"], "--data", data]
    found = result(capsys, *words, "--criteria", "kind", "true")
    sides = [RewardModel.from_folder(models["two"]).score([row["prompt"] for row in rows], [row[side] for row in rows])
             for side in ("chosen", "rejected")]  # fmt: skip
    right = (sides[0] > sides[1])[:5]
    for head, name, own in ((0, "kind", [0, 2, 4]), (1, "true", [1, 3, 4])):
        report = found["models"][f"{models['two']}[{name}]"]["accuracy"]
        assert (report["pairs"], report["right"]) == (3, int(right[own, head].sum()))
    both = bool((sides[0].mean(1) > sides[1].mean(1))[4])
    assert found["accuracy"]["right"] == int(right[[0, 2], 0].sum() + right[[1, 3], 1].sum() + both)
    assert (found["accuracy"]["pairs"], sum(found["skipped"].values())) == (5, 3)
    named = result(capsys, *words, "--criteria", "kind", "true", "--head", "true")
    assert (named["model"], named["accuracy"]["pairs"]) == (models["two"], 3)
    assert named["accuracy"]["right"] == int(right[[1, 3, 4], 1].sum())
    assert named["skipped"]["the row is about another criterion than the head"] == 2
    assert result(capsys, *words, "--head", "1")["accuracy"]["pairs"] == 8  # without criteria the column is not read
    assert main([*words, "--criteria", "kind"]) == 2
    assert "criteria names 1" in capsys.readouterr().err
    assert main([*words, "--head", "kind"]) == 2
    assert "counted from 0" in capsys.readouterr().err


def test_a_run_names_its_heads(models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(models["two"], run)
    (run / "config.yaml").write_text("criteria: [kind, true]\nnum_heads: 1\n".replace("true", "'true'"))
    rows: list[dict[str, Any]] = [
        {"prompt": "q", "chosen": "a", "rejected": "b", "criterion": about} for about in ("kind", "true", None)
    ]
    data = rows_file(tmp_path / "rows.jsonl", rows)
    one = ["evaluate", "--reward_model", str(run), "--data", data]
    found = result(capsys, *one)
    assert list(found["models"]) == [f"{run}[kind]", f"{run}[true]"]
    assert found["by_criterion"] == 2
    assert result(capsys, *one, "--criteria", "kind", "true") == found
    assert main(one) == 0
    assert "each row by its criterion's head, others by the mean" in capsys.readouterr().out
    assert result(capsys, *one, "--head", "true")["accuracy"]["pairs"] == 2
    assert main([*one, "--criteria", "true", "kind"]) == 2
    assert "trained as kind, true" in capsys.readouterr().err
    # What no head's names fit stays numbered: weights over all, and another model with heads of its own.
    weighted = result(capsys, *one, "--combine", "weighted", "--weights", "1", "2")
    assert list(weighted["models"]) == [f"{run}[0]", f"{run}[1]"]
    beside = result(capsys, *one[:3], models["two"], *one[3:])
    assert next(iter(beside["models"])) == f"{run}[0]"
    assert next(iter(result(capsys, *one[:3], models["one"], *one[3:])["models"])) == f"{run}[kind]"

    # A score is that of the head that the row is about.
    target = tmp_path / "scored.jsonl"
    result(capsys, "score", *one[1:], "--output", str(target))
    scores = RewardModel.from_folder(models["two"]).score(["q"], ["a"])[0]
    wanted = [scores[0], scores[1], scores.mean()]
    assert [row["score_chosen"] for row in read(target)] == pytest.approx(wanted, abs=1e-6)


def test_models_of_the_other_kind_are_refused(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows_file(tmp_path / "rows.jsonl", RANKED)
    prm, reward, other = (tmp_path / name for name in ("prm", "reward", "other"))
    for folder, config in ((prm, "num_classes: 2"), (reward, "num_heads: 2"), (other, None)):
        shutil.copytree(models["two"], folder)
        if config is not None:
            (folder / "config.yaml").write_text(config)
    about = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(about | {"architectures": ["Qwen2ForTokenClassification"]}))
    shutil.copytree(prm, prm / "checkpoint-5", ignore=shutil.ignore_patterns("config.yaml"))
    for folder in (prm, prm / "checkpoint-5", other):
        assert main(["evaluate", "--reward_model", str(folder), "--data", data]) == 2
        err = capsys.readouterr().err
        assert f"{folder}: a process reward model" in err
        assert "--process_reward_model" in err
    for name in (str(reward), models["one"]):
        assert main(["evaluate", "--process_reward_model", name, "--data", data]) == 2
        err = capsys.readouterr().err
        assert f"{name}: " in err
        assert "train one with `alignite prm`" in err


def test_a_category_column_that_no_row_has(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "b", "rejected": "a", "kind": 1}]
    words = ["evaluate", "--reward_model", models["one"], "--data", rows_file(tmp_path / "rows.jsonl", rows)]
    assert main([*words, "--category_column", "nosuch"]) == 3
    assert "no row has the column 'nosuch'" in capsys.readouterr().err
    assert list(result(capsys, *words, "--category_column", "kind")["categories"]) == ["1"]
    assert result(capsys, *words)["categories"] == {}


def test_solutions_are_graded_by_the_true_answer(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "1+1?", "completions": ["so\n#### 2", "so\n#### 3", "it is \\boxed{2}"], "answer": "#### 2"},
        {"prompt": "half?", "completions": ["A: 0.5", "A: 2"], "answer": 0.5},
        {"prompt": "x?", "completions": ["#### 1", "#### 2"]},
        {"prompt": "x?", "completions": "#### 1", "answer": "1"},
    ]
    output = tmp_path / "scores.jsonl"
    words = ["evaluate", "--reward_model", models["one"], "--data", rows_file(tmp_path / "rows.jsonl", rows)]
    found = result(capsys, *words, "--answer_column", "answer", "--output", str(output))
    assert [row["values"] for row in read(output)] == [[1, 0, 1], [1, 0]]
    assert found["best_of_n"]["1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (found["accuracy"]["pairs"], found["best_possible"]["2"]) == (3, 1.0)
    assert sorted(found["skipped"].values()) == [1, 1]


def test_rated_steps_are_evaluated(models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = rows_file(tmp_path / "steps.jsonl", STEPS, BAD[:2]), tmp_path / "scores.jsonl"
    words = ("evaluate", "--process_reward_model", models["prm"], "--data", data)
    found = result(capsys, *words, "--output", str(output))
    scorer = ProcessRewardModel.from_folder(models["prm"])
    wanted = scorer.step_scores([row["prompt"] for row in STEPS], [row["completions"] for row in STEPS])
    for row, values in zip(read(output), wanted, strict=True):
        assert row["scores"] == pytest.approx(values.tolist(), abs=1e-6)
    says = np.concatenate(wanted) >= 0.5
    good = np.array([label > 0 for row in STEPS for label in row["labels"]])
    assert (found["accuracy"]["steps"], found["accuracy"]["right"]) == (8, int((says == good).sum()))
    assert (found["first_error"]["wrong"], found["first_error"]["right"]) == (2, 2)
    assert sum(found["skipped"].values()) == 2
    assert main([*words, "--step_threshold", "0.9"]) == 0
    assert "first error" in capsys.readouterr().out
    right = rows_file(tmp_path / "right.jsonl", [STEPS[1]])  # a share of nothing is no 0 %
    assert main([*words[:-1], right]) == 0
    assert "found in - of 0 wrong solutions" in capsys.readouterr().out
    assert result(capsys, *words[:-1], right)["first_error"]["accuracy_wrong"] is None

    # PRM800K's alternatives count, each in a line of its own.
    two = {"completions": [{"text": "a", "rating": 1}, {"text": "b", "rating": -1}], "chosen_completion": 0}
    label = {"steps": [two, two], "finish_reason": "solution"}
    tree = rows_file(tmp_path / "prm800k.jsonl", [{"question": {"problem": "1?"}, "label": label}])
    lines = tmp_path / "tree.jsonl"
    assert main([*words[:-1], tree, "--output", str(lines)]) == 0
    assert "steps        4, 2 of them alternatives" in capsys.readouterr().out
    assert [row.get("steps") for row in read(lines)] == [None, ["a", "b"], ["b"]]
    assert [row["labels"] for row in read(lines)] == [[1, 1], [None, -1], [-1]]

    # The same model ranks whole solutions.
    ranked = [{"prompt": "2?", "completions": ["a\nb", "c\nd\ne"], "scores": [1, 0]}]
    report = result(capsys, "evaluate", "--process_reward_model", models["prm"], "--aggregation", "min", "--data",
                    rows_file(tmp_path / "ranked.jsonl", ranked))  # fmt: skip
    assert report["accuracy"]["pairs"] == 1
    target = tmp_path / "scored.jsonl"
    result(capsys, "score", "--process_reward_model", models["prm"], "--data", data, "--output", str(target))
    assert [row["score"] for row in read(target)] == pytest.approx([float(values.prod()) for values in wanted])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_model_scores_the_same_and_ends_when_told(
    number: signal.Signals, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows_file(tmp_path / "rows.jsonl", [*MIXED, {"prompt": "q", "completion": "long " * 900}])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    codes: list[int] = []

    def ask() -> None:
        try:
            for _ in range(200):
                with socket.socket() as tried:
                    if tried.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            words = ["score", "--data", data, "--max_length", "2000", "--reward_model"]
            codes.append(main([*words, url, "--output", str(tmp_path / "served.jsonl")]))
            codes.append(main([*words, models["one"], "--output", str(tmp_path / "here.jsonl")]))
            with pytest.raises(DataError) as error:
                RewardClient(HttpClient(url)).score(["q"], ["long " * 900])
            codes.append("longer than" in str(error.value.why))
        finally:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    asker = threading.Thread(target=ask)
    asker.start()
    assert main(["serve", "--reward_model", models["one"], "--port", str(port), "--max_length", "2000"]) == 0
    asker.join()
    assert codes == [0, 0, True]
    assert signal.getsignal(number) is before
    out = capsys.readouterr().out
    assert url in out
    assert out.count("longer than max_length") == 2  # the row is counted the same behind HTTP
    for served, here in zip(read(tmp_path / "served.jsonl"), read(tmp_path / "here.jsonl"), strict=True):
        assert served.keys() == here.keys()
        for name in ("score", "score_chosen", "scores"):
            assert served.get(name) == (pytest.approx(here[name], abs=1e-6) if name in here else None)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_refusals(
    models: dict[str, str], tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows_file(tmp_path / "rows.jsonl", MIXED[:1], BAD[1:2])
    out = ["--output", str(tmp_path / "out.jsonl")]
    one = ["--reward_model", models["one"]]
    cases: list[tuple[list[str], int, str]] = [
        (["score", "--data", data, *out], 2, "no reward_model is given"),
        (["score", *one, *out], 2, "no data is given"),
        (["score", *one, "--data", data], 2, "no output is given"),
        (["score", *one, "--data", data, "--output", "x.csv"], 2, ".jsonl"),
        (["score", *one, "--data", data, "--output", "-", "--json"], 2, "standard output"),
        (["score", *one, "--data", data, "--output", data], 6, "there already"),
        (["score", *one, "--data", data, *out, "--on_bad_row", "error"], 3, f"{data}:2"),
        (["score", *one, "--data", data, *out, "--combine", "lexicographic"], 3, "no row could be scored"),
        (["score", *one, "--data", data, *out, "--combine", "weighted"], 2, "a number a model"),
        (["score", *one, "--data", data, *out, "--weights", "nan", "--combine", "weighted"], 2, "a finite number"),
        (["score", *one, "--data", data, *out, "--safety_column", "x"], 2, "without threshold"),
        (["score", "--reward_model", models["two"], "--head", "2", "--data", data, *out], 2, "2 heads"),
        (["score", "--reward_model", str(tiny_model_folder), "--data", data, *out], 4, "no score head"),
        (["score", "--reward_model", str(tmp_path / "none"), "--data", data, *out], 4, "no model folder"),
        (["score", "--reward_model", "http://", "--data", data, *out], 2, "no server's URL"),
        (["score", "--process_reward_model", "http://127.0.0.1:1", "--data", data, *out], 2, "a served one"),
        (["score", "--process_reward_model", models["one"], "--data", data, *out], 2, "two or three classes"),
        (["evaluate", *one], 2, "no data is given"),
        (["evaluate", *one, "--data", data], 3, "no row is a pair"),
        (["evaluate", *one, "--data", data, "--step_threshold", "1"], 2, "step_threshold is 1"),
        (["serve"], 2, "no reward_model is given"),
        (["serve", *one, "--combine", "lexicographic"], 2, "one call"),
        (["serve", *one, "--port", "70000"], 2, "port is 70000"),
        (["serve", "--reward_model", models["two"], "--head", "7"], 2, "2 heads"),
    ]
    for words, code, said in cases:
        assert main(words) == code, words
        assert said in capsys.readouterr().err, words
    assert not (tmp_path / "out.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_most_rows_say_what_is_evaluated(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"prompt": f"{n}?", "completions": ["a", "b"], "labels": [1, 0]} for n in range(3)]
    data = rows_file(tmp_path / "steps.jsonl", [{}, *steps])
    found = result(capsys, "evaluate", "--process_reward_model", models["two"], "--data", data)
    assert found["accuracy"]["steps"] == 6


def test_scores_of_before_are_never_lost(models: dict[str, str], tmp_path: Path) -> None:
    data = rows_file(tmp_path / "r.jsonl", [{"prompt": "q", "completions": ["a", "b c"], "scores": [1, 0]}])
    for number in (1, 2):
        output = str(tmp_path / f"scored{number}.jsonl")
        assert main(["score", "--reward_model", models["one"], "--data", data, "--output", output]) == 0
        data = output
    (row,) = read(tmp_path / "scored2.jsonl")
    assert row["given_scores"] == [1, 0]
    assert row["given_scores_2"] == row["scores"]
    assert row["given_best_2"] == row["best"]


def test_what_other_models_said_does_not_stay_beside_new_scores(models: dict[str, str], tmp_path: Path) -> None:
    data = rows_file(tmp_path / "r.jsonl", [{"prompt": "q", "completions": ["a", "b c"], "scores": [1, 0]}])
    first, second = str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl")
    assert main(["score", "--reward_model", models["two"], "--data", data, "--output", first]) == 0
    assert main(["score", "--reward_model", models["one"], "--data", first, "--output", second]) == 0
    (before,), (row,) = read(Path(first)), read(Path(second))
    assert "model_scores" not in row
    assert row["given_model_scores_2"] == before["model_scores"]
