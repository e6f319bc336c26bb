"""Instruction templates from Python: three kinds of files, instances, demonstrations, what prepare makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignite.config import SFTConfig
from alignite.data import ChatTokenizer, FewShot, PromptTemplate, TaskSource, TemplateSet, prepare_sft
from alignite.data.task_file import read_task
from alignite.errors import ConfigError, DataError, TemplateError, UsageError

P3 = """\
dataset: sums
subset: small
templates:
  one: !Template
    answer_choices: right ||| wrong
    id: one
    jinja: '{{ ["Is", "Say if"] | choice }} {{ question }} = {{ answer }} ? {{ answer_choices | join(" or ") }}
      ||| {{ answer_choices[0] }}'
    metadata: !TemplateMetadata
      choices_in_prompt: true
      languages: [en]
      metrics: [Accuracy]
      original_task: false
    name: check it
    reference: ''
  two: !Template
    answer_choices: null
    id: two
    jinja: "{{ question }}|||{{ answer }}"
    metadata: !TemplateMetadata {}
    name: ask it
    reference: ''
"""
FLAN = [
    ("{question}\n\n{options_}", "{answer}"),
    ("Which sum gives {answer}?", "{question}"),
]
ROWS: list[dict[str, Any]] = [
    {"question": f"{n} + 1", "answer": str(n + 1), "options": [str(n), str(n + 1)]} for n in range(60)
]


def few_shot(**changed: Any) -> FewShot:
    values: dict[str, Any] = {"k": (1, 3), "max_tokens": 200, "tokenizer": len, **changed}
    return FewShot(**values)


@pytest.fixture
def p3_file(tmp_path: Path) -> Path:
    path = tmp_path / "templates.yaml"
    path.write_text(P3)
    return path


def test_a_template_gives_prompt_and_target() -> None:
    template = PromptTemplate.parse("{{ text }} Topic? {{ answer_choices | join(', ') }} ||| {{ topic }}", "a ||| b")
    assert template.apply({"text": "x ||| y", "topic": "a"}) == ["x ||| y Topic? a, b", "a"]


def test_a_template_that_cannot_be_taken_says_why() -> None:
    with pytest.raises(TemplateError, match="refused"):
        PromptTemplate.parse("{{ " + "(" * 200 + "1" + ")" * 200 + " }}")
    with pytest.raises(TemplateError, match="cannot be compiled"):
        PromptTemplate.parse("{{ a")
    with pytest.raises(TemplateError, match="too many steps"):
        PromptTemplate.parse("{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}").apply({})
    with pytest.raises(TemplateError, match="fails on this row"):
        PromptTemplate.parse("{{ a.b.c }} ||| d").apply({})


def test_instances_of_promptsource_files(p3_file: Path) -> None:
    templates = TemplateSet.load(p3_file)
    assert templates.task == "sums/small"
    assert templates.templates == [("one", "check it"), ("two", "ask it")]
    instances = TaskSource(ROWS, templates).instances(seed=1)
    assert instances.report is None
    rows = list(instances)
    assert [row["row"] for row in rows] == list(range(60))
    assert {row["task"] for row in rows} == {"sums/small"}
    for row in rows:
        assert row["options"] == (row["template_id"] == "one") == ("right or wrong" in row["prompt"])
        assert row["style"] == ("zs_opt" if row["options"] else "zs_noopt")
        assert row["shots"] == 0
    report = instances.report
    assert report is not None
    assert report["instances"] == report["rows"] == sum(report["templates"].values()) == 60
    assert set(report["templates"]) == {"check it", "ask it"}


def test_demonstrations_stand_before_the_question() -> None:
    source = TaskSource(ROWS, TemplateSet.flan("sums", FLAN), styles={"fs_opt": 1}, few_shot=few_shot())
    for row in source.instances(seed=5):
        *shown, question = row["prompt"].split("\n\n\n")
        assert len(shown) == row["shots"] >= 1
        assert question == f"{row['row']} + 1\n\nOPTIONS:\n- {row['row']}\n- {row['row'] + 1}"
        assert not any(part.startswith(f"{row['row']} + 1\n") for part in shown)
        assert len(row["prompt"]) <= 200


def test_letters_and_inverted_patterns() -> None:
    lettered = TaskSource(ROWS, TemplateSet.flan("sums", FLAN), styles={"zs_opt": 1}, letters=True)
    assert next(lettered.instances())["prompt"] == "0 + 1\n\nOPTIONS:\n(A) 0\n(B) 1"
    inverted = TaskSource(ROWS, TemplateSet.flan("sums", FLAN[1:]))
    row = next(inverted.instances())
    assert (row["prompt"], row["completion"]) == ("Which sum gives 1?", "0 + 1")


def test_another_process_makes_the_same(p3_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code = (
        "import sys; from alignite.data import *\n"
        "f = FewShot(k=(1, 3), max_tokens=200, tokenizer=len)\n"
        "s = TaskSource(sys.argv[1], TemplateSet.load(sys.argv[2]), few_shot=f, num_threads=int(sys.argv[3]))\n"
        "sys.stdout.write('\\n'.join(s.instances(7).lines()))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, data, p3_file, threads], check=True, capture_output=True, text=True
        ).stdout
        for threads in ("1", "3")
    ]
    assert outputs[0] == outputs[1]
    here = TaskSource(data, TemplateSet.load(p3_file), few_shot=few_shot()).instances(7)
    assert outputs[0] == "\n".join(here.lines())
    assert outputs[0].count('"style":"fs_') > 10


def test_prepare_reads_instances_and_learns_what_it_should(tiny_model_folder: Path, tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    templates = TemplateSet.flan("sums", FLAN)
    config = SFTConfig(max_length=1024, apply_chat_template=True)

    def learned(few: FewShot, folder: str) -> list[tuple[int, int]]:
        rows = list(TaskSource(ROWS[:8], templates, styles={"fs_noopt": 1}, few_shot=few).instances())
        prepared = prepare_sft(rows, tokenizer, config, tmp_path / folder)
        counts: list[tuple[int, int]] = []
        for index, row in enumerate(rows):
            ids, labels, *_ = prepared.arrays([index])
            text = tokenizer.decode([int(i) for i in ids[labels != -100]])
            counts.append((text.count("<|im_end|>"), row["shots"]))
        return counts

    by_tokenizer = few_shot(k=(2, 2), max_tokens=400, tokenizer=tokenizer)
    assert learned(by_tokenizer, "one") == [(1, 2)] * 8
    every = few_shot(k=(2, 2), max_tokens=400, all_targets=True)
    assert learned(every, "all") == [(3, 2)] * 8


def test_task_files_of_super_natural_instructions(tmp_path: Path) -> None:
    path = tmp_path / "task1_sums.json"
    task = {
        "Definition": ["Add one."],
        "Positive Examples": [{"input": "1", "output": "2", "explanation": "1 + 1"}],
        "Negative Examples": [{"input": "1", "output": "1", "explanation": "nothing was added"}],
        "Instances": [{"id": f"i{n}", "input": str(n), "output": [str(n + 1)]} for n in range(3, 6)],
    }
    path.write_text(json.dumps(task))

    def rows(**parts: Any) -> list[dict[str, Any]]:
        source = TaskSource(
            None, TemplateSet.load(path, **parts), styles={"fs_noopt": 1}, few_shot=few_shot(max_tokens=500)
        )
        return list(source.instances())

    plain = rows()
    assert plain[0]["prompt"] == (
        "Definition: Add one.\n\n Positive Example 1 -\nInput: 1.\n Output: 2.\n\n"
        "Now complete the following example -\nInput: 3.\nOutput: "
    )
    assert [row["completion"] for row in plain] == ["4", "5", "6"]
    parts: dict[str, dict[str, Any]] = {
        "Definition: Add one.\n\n": {"description": False},
        " Negative Example 1 -\nInput: 1.\n Output: 1.\n\n": {"negatives": 1},
        " Explanation: 1 + 1.\n": {"explanations": True},
    }
    for text, changed in parts.items():
        for one, other in zip(plain, rows(**changed), strict=True):
            longer, shorter = sorted((one["prompt"], other["prompt"]), key=len, reverse=True)
            assert longer.replace(text, "") == shorter != longer
            assert one | {"prompt": ""} == other | {"prompt": ""}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [", "not YAML"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("a: 1", "no instruction templates"),
        ("templates: {x: {name: y}}", "no jinja"),
        ("templates: {x: {jinja: y, answer_choices: [1]}}", "answer_choices"),
        ("templates: {}", "no template"),
        ("patterns: [[a]]", "no list of pairs"),
    ],
)
def test_template_files_that_cannot_be_read(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(TemplateError, match=what):
        TemplateSet.load(path)


def test_sources_that_cannot_work_say_so() -> None:
    templates = TemplateSet.flan("t", FLAN)
    with pytest.raises(UsageError, match="unknown style"):
        TaskSource(ROWS, templates, styles={"zs": 1})
    with pytest.raises(DataError, match="no rows"):
        TaskSource(None, templates)
    with pytest.raises(UsageError, match="no few_shot"):
        list(TaskSource(ROWS, templates, styles={"fs_opt": 1}).instances())
    with pytest.raises(DataError, match='no column "'):
        list(TaskSource([{"a": 1}], templates).instances())
    with pytest.raises(UsageError, match="token counter fails"):
        list(TaskSource(ROWS, templates, styles={"fs_opt": 1}, few_shot=few_shot(tokenizer=lambda _: "x")).instances())


def test_bad_rows_are_skipped_and_counted() -> None:
    rows: list[dict[str, Any]] = [*ROWS[:3], {"question": "x"}, {"question": "y", "answer": " "}]
    templates = TemplateSet.flan("t", [("{question}", "{answer}")])
    instances = TaskSource(rows, templates, on_bad_row="skip").instances()
    assert len(list(instances)) == 3
    assert instances.report is not None
    assert instances.report["dropped"] == {'no column "answer"': 1, "the target is empty": 1}


def test_instances_need_not_be_taken_to_the_end() -> None:
    source = TaskSource(ROWS * 100, TemplateSet.flan("t", FLAN))
    assert next(source.instances())["row"] == 0
    assert len(list(source.instances(max_examples=7))) == 7


@pytest.fixture
def task_file(tmp_path: Path, p3_file: Path) -> Callable[[str], Path]:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def write(text: str) -> Path:
        path = tmp_path / "task.yaml"
        path.write_text(f"data: [{tmp_path / 'rows.jsonl'}]\ntemplates: {p3_file}\n{text}")
        return path

    return write


def test_a_task_file_says_what_python_says(
    task_file: Callable[[str], Path], tmp_path: Path, tiny_model_folder: Path
) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    path = task_file("styles: {fs_noopt: 2, zs_opt: 1}\nfew_shot: {k: 2, max_tokens: 300, same_template: false}\n")
    read = list(read_task(path, tokenizer=tokenizer).instances(3))
    few = FewShot(k=(2, 2), max_tokens=300, same_template=False, tokenizer=tokenizer)
    templates = TemplateSet.load(tmp_path / "templates.yaml")
    said = TaskSource(tmp_path / "rows.jsonl", templates, styles={"fs_noopt": 2, "zs_opt": 1}, few_shot=few).instances(
        3
    )
    assert read == list(said)
    assert {row["style"] for row in read} == {"fs_noopt", "zs_opt"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("style: {}", "unknown key style"),
        ("letters: 1", "letters is 1"),
        ("templates_per_row: -1", "templates_per_row is -1"),
        ("templates_per_row: true", "templates_per_row is True"),
        ("few_shot: {k: [3]}", "few_shot.k"),
        ("few_shot: {shots: 3}", "unknown key few_shot.shots"),
        ("few_shot: {max_tokens: 0}", "few_shot.max_tokens"),
        ("few_shot: {k: 3}", "needs a tokenizer"),
        ("styles: {zs_opt: x}", "weight of style"),
        ("a: [", "not YAML"),
    ],
)
def test_task_files_that_cannot_be_taken(text: str, what: str, task_file: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=what):
        read_task(task_file(text))
