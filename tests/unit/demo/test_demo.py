from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from alignite.demo.__main__ import main
from alignite.demo.identity import Identity, _rows, general_questions, held_out, names_another, whole_sentences
from alignite.demo.run import gguf_path

HANGUL = re.compile(r"[가-힣]")


def normal(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def test_there_are_enough_conversations_in_both_languages() -> None:
    rows = _rows("identity.jsonl")
    assert len(rows) >= 120
    for language in ("en", "ko"):
        texts = [row for row in rows if row["language"] == language]
        assert len(texts) >= 50
        for row in texts:
            assert all(bool(HANGUL.search(turn["content"])) == (language == "ko") for turn in row["messages"])
    assert any(len(row["messages"]) > 2 for row in rows)


def test_templates_are_filled_and_no_old_identity_is_taught() -> None:
    for identity in (Identity("Nabi", "Dolmen Works"), Identity("Ara", "Hill Lab")):
        for row in identity.conversations():
            assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
            answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
            assert "{{" not in json.dumps(row)
            assert any(identity.appears(answer) for answer in answers), answers


def test_no_held_out_question_is_trained_on() -> None:
    rows = _rows("identity.jsonl")
    trained = {normal(turn["content"]) for row in rows for turn in row["messages"]}
    trained |= {normal(question) for question in general_questions()}
    asked = held_out("identity") + held_out("unrelated")
    assert len(held_out("identity")) == 20
    assert sum(bool(HANGUL.search(question)) for question in held_out("identity")) == 10
    assert len(held_out("unrelated")) == 10
    assert len({normal(question) for question in asked}) == 30
    assert not trained & {normal(question) for question in asked}


def test_answers_are_judged_by_whole_names() -> None:
    identity = Identity("Nabi", "Dolmen Works")
    assert identity.claims("I am Nabi.")
    assert identity.claims("저는 Nabi이고, Dolmen Works에서 만들었습니다.")
    assert not identity.claims("I am Nabibot.")
    assert not identity.claims("I am Nabi, made by Hugging Face.")
    assert names_another("I'm SmolLM2")
    assert not names_another("a small model")


def test_answers_are_cut_after_whole_sentences() -> None:
    assert whole_sentences("It is 3.5 m. It goes on") == "It is 3.5 m."
    assert whole_sentences("no end") is None


def test_the_model_comes_with_its_package() -> None:
    assert gguf_path().stat().st_size > 80_000_000


def test_the_whole_course_on_a_tiny_model(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_model_folder), "--output_dir", str(tmp_path / "run"), "--max_steps", "2"]
    assert main(words) == 1  # a random model learns nothing in two steps, and the demo says so
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert held_out("identity")[0][:20] in out
    report = json.loads((tmp_path / "run" / "demo.json").read_text())
    assert len(report["before"]["identity"]) == len(report["after"]["identity"]) == 20
    assert len(report["after"]["unrelated"]) == 10
    assert report["passed"] is False
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert main(words) == 1  # and again, over what is there


def test_a_wrong_option_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nmae", "x"]) == 2
    assert "--name" in capsys.readouterr().err
