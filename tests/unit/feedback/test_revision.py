"""Critique and revision by principles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignite.data.convert import convert_rows
from alignite.errors import DataError, UsageError
from alignite.feedback.revision import Constitution, Principle, revise, sft_rows

OURS = {
    "name": "kitchen",
    "principles": [
        {"id": "burns", "critique": "Say where a cook could get hurt.", "revision": "Warn of what is hot or sharp."},
        {"id": "plain", "critique": "Name words that a child would not know.", "revision": "Use plainer words."},
        {"id": "waste", "critique": "Point out food that is thrown away.", "revision": "Use it up instead."},
    ],
}
KITCHEN = Constitution.of(OURS)


class Cook:
    """Writes a critique that names its request, and appends a word to the last reply at each revision."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.asked.append(prompt)
        if prompt.endswith("Critique:"):
            return f" About: {prompt.rsplit('CritiqueRequest: ', 1)[1].partition(chr(10))[0]}\n\nHuman: and then?"
        if prompt.endswith("Revision:"):
            reply = prompt.rsplit("Assistant:", 1)[1].partition("\n\nCritiqueRequest")[0].strip()
            return f" {reply} better\n\nCritiqueRequest: more"
        return " Boil it.\n\nHuman: thanks"


def test_each_revision_knows_its_critique_and_principle() -> None:
    cook = Cook()
    chains, report = revise(KITCHEN, cook, [{"prompt": "How do I cook rice?"}], rounds=3)
    (chain,) = chains
    assert chain.response == "Boil it."
    assert [revision.round for revision in chain.revisions] == [0, 1, 2]
    assert {revision.principle for revision in chain.revisions} == {"burns", "plain", "waste"}
    texts = {principle.id: principle for principle in KITCHEN.principles}
    before = chain.response
    for revision in chain.revisions:
        assert revision.before == before
        assert revision.critique == f"About: {texts[revision.principle].critique}"
        assert revision.after == f"{before} better"
        before = revision.after
    assert (report.prompts, report.revisions, report.empty) == (1, 3, 0)
    assert cook.asked[0] == "Human: How do I cook rice?\n\nAssistant:"
    assert texts[chain.revisions[0].principle].revision in cook.asked[2]
    assert json.loads(json.dumps(chain.as_row()))["revisions"][2]["after"] == before


def test_rows_to_train_on_hold_no_principles() -> None:
    prompt = [{"role": "user", "content": "Tell me."}]
    chains, _ = revise(KITCHEN, Cook(), [{"prompt": "q", "completion": "Fry it."}, {"prompt": prompt}], rounds=2)
    rows = sft_rows(chains)
    assert rows[:2] == [
        {"prompt": "q", "completion": "Fry it. better"},
        {"prompt": "q", "completion": "Fry it. better better"},
    ]
    assert rows[3] == {"prompt": prompt, "completion": [{"role": "assistant", "content": "Boil it. better better"}]}
    assert [row["completion"] for row in sft_rows(chains[:1], which="last")] == ["Fry it. better better"]
    shown = json.dumps(rows)
    for principle in KITCHEN.principles:
        assert principle.critique not in shown
        assert principle.revision not in shown
    assert "Critique" not in shown
    read, report = convert_rows(rows[:2], "messages")
    assert report.format == "prompt-completion"
    assert read[1]["messages"][1]["content"] == "Fry it. better better"


def test_draws_follow_seed_and_row_in_any_number_of_threads() -> None:
    rows = [{"prompt": f"q{n}", "completion": "x"} for n in range(12)]

    def principles(**options: Any) -> list[list[str]]:
        return [[r.principle for r in chain.revisions] for chain in revise(KITCHEN, Cook(), rows, **options)[0]]

    drawn = principles(rounds=4, seed=1)
    assert drawn == principles(rounds=4, seed=1, workers=4)
    assert drawn != principles(rounds=4, seed=2)
    assert all(len(set(chain[:3])) == 3 for chain in drawn)
    assert len({tuple(chain) for chain in drawn}) > 3


def test_a_model_that_says_nothing_ends_the_chain() -> None:
    def mute(prompt: str) -> str:
        if prompt.endswith("Revision:") and "first better" in prompt:
            return " "
        return Cook()(prompt)

    chains, report = revise(KITCHEN, mute, [{"prompt": "q", "completion": "first"}], rounds=3)
    assert [revision.after for revision in chains[0].revisions] == ["first better"]
    assert (report.revisions, report.empty) == (1, 1)
    silent, report = revise(KITCHEN, lambda prompt: "", [{"prompt": "q", "completion": "first"}], rounds=2)
    assert sft_rows(silent) == []
    assert report.empty == 1


def test_exemplars_stand_in_front() -> None:
    cook = Cook()
    revise(KITCHEN, cook, [{"prompt": "q"}], rounds=1, exemplars="EXAMPLE")
    assert all(prompt.startswith("EXAMPLE\n\nHuman: q\n\nAssistant:") for prompt in cook.asked)


def test_files_of_ours_and_of_pairs(tmp_path: Path) -> None:
    KITCHEN.save(tmp_path / "ours.json")
    assert Constitution.load(tmp_path / "ours.json") == KITCHEN
    pairs = {
        f"kitchen{n}": {
            "prompt": f"\n\nCritiqueRequest: Find fault {n}.\n\nCritique:",
            "edit_request": f"\n\nRevisionRequest: Mend fault {n}.\n\nRevision:",
        }
        for n in range(16)
    }
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    loaded = Constitution.load(tmp_path / "pairs.json")
    assert loaded.name == "pairs"
    assert len(loaded.principles) == 16
    assert loaded.principles[3] == Principle("kitchen3", "Find fault 3.", "Mend fault 3.")
    named = {"a": {"critique": "Find.", "revision": "Mend."}}
    assert Constitution.of(named).principles == (Principle("a", "Find.", "Mend."),)
    assert Constitution.of([{"critique": "Find.", "revision": "Mend."}]).principles[0].id == "0"


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({}, "no principles"),
        ([], "no principles"),
        ("text", "no principles"),
        ({"principles": {"a": 1}}, "no principles"),
        ({"a": 3}, "no object"),
        ([{"critique": "x"}], "no revision request"),
        ([{"critique": " ", "revision": "y"}], "no critique request"),
        ([{"prompt": "\n\nCritiqueRequest:\n\nCritique:", "edit_request": "y"}], "no critique request"),
        ([{"id": "a", "critique": "x", "revision": "y"}] * 2, "two principles are called 'a'"),
    ],
)
def test_bad_principles(held: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(held))
    with pytest.raises(DataError, match=message) as caught:
        Constitution.load(file)
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_read_and_bad_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Constitution.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Constitution.load(tmp_path / "broken.json")
    for options in ({"rounds": 0}, {"workers": 0}):
        with pytest.raises(UsageError, match="rounds is"):
            revise(KITCHEN, Cook(), [], **options)
    chains, report = revise(KITCHEN, Cook(), [{"prompt": ""}, {"x": 1}, {"prompt": "q"}], on_bad_row="skip")
    assert len(chains) == 1
    assert sum(count.count for count in report.bad.values()) == 2
