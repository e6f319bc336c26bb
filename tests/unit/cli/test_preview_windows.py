"""`alignite preview --prepared`: windows as they stand in the files, with their records and shared prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignite.cli.main import main
from alignite.config import PrepareConfig
from alignite.data import ChatTokenizer, PreparedSet, prepare
from alignite.data.windows import windows_of
from alignite.errors import UsageError

PAIR: dict[str, Any] = {"prompt": "Is it?", "chosen": "yes it is", "rejected": "no"}
RANKED: dict[str, Any] = {"prompt": "q", "completions": ["a", "b", "c"], "scores": [2, 1, 0]}
STEPS: dict[str, Any] = {"prompt": "q", "completions": ["One.", "Two.", "Three."], "labels": [1, 0, -1]}


def made(rows: list[dict[str, Any]], model: Path, folder: Path, **options: Any) -> tuple[Path, Path]:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(file, ChatTokenizer.from_folder(model), PrepareConfig(**options), folder / "set")
    return file, folder / "set"


def shown(model: Path, folder: Path, capsys: Any, *more: str) -> str:
    assert main(["preview", "--model", str(model), "--prepared", str(folder), *more]) == 0
    text: str = capsys.readouterr().out
    return text


def test_a_pair_shows_its_shared_prompt(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    rows = [PAIR | {"margin": 2, "p": 0.75, "criterion": "helpful", "weight": 0.5}]
    file, folder = made(rows, tiny_model_folder, tmp_path, criteria=["harmless", "helpful"])
    text = shown(tiny_model_folder, folder, capsys, "--criteria", "harmless", "helpful")
    window = windows_of(PreparedSet(folder), ChatTokenizer.from_folder(tiny_model_folder))[0]
    prompt, chosen, rejected = window.records[0].segments.values()
    assert (prompt.parent, chosen.parent, rejected.parent) == (None, 0, 0)
    assert chosen.position == rejected.position == prompt.tokens
    assert f"row 0  {file}:1  criterion helpful  weight 0.5" in text
    assert "shared by 2 replies" in text
    assert f"1 chosen: {chosen.tokens} tokens, {chosen.scored_tokens} scored, positions {prompt.tokens} to" in text
    assert "behind 0, margin 2" in text
    assert "behind 0, p 0.75" in text
    assert "⟦yes it is<|im_end|>⟧" in text
    assert "⟦no<|im_end|>⟧" in text


def test_records_of_a_packed_window_are_parted(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    _, folder = made([RANKED] * 3, tiny_model_folder, tmp_path, packing="bfd", max_length=400)
    text = shown(tiny_model_folder, folder, capsys)
    assert "3 records" in text
    assert text.count("  ┌ row") == text.count("  └") == 3
    assert text.count("shared by 3 replies") == 3
    # Segments count through the window, and each reply continues its own record's prompt.
    assert "  │ 8 prompt" in text
    assert "behind 8, score 2" in text
    data = json.loads(shown(tiny_model_folder, folder, capsys, "--json"))
    assert [list(record["segments"]) for record in data[0]["records"]] == [
        [str(first + n) for n in range(4)] for first in (0, 4, 8)
    ]


def test_ratings_stand_behind_the_steps(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    _, folder = made([STEPS], tiny_model_folder, tmp_path)
    text = shown(tiny_model_folder, folder, capsys)
    assert "One⟦. +1⟧⏎" in text
    assert "Two⟦. 0⟧⏎" in text
    assert "Three⟦. -1⟧" in text


def test_rows_are_asked_for_by_number_or_place(tiny_model_folder: Path, tmp_path: Path, capsys: Any) -> None:
    file, folder = made([PAIR | {"chosen": f"yes {n}"} for n in range(4)], tiny_model_folder, tmp_path)
    for asked in ("2", f"{file}:3", "rows.jsonl:3"):
        text = shown(tiny_model_folder, folder, capsys, "--row", asked)
        assert "yes 2" in text
        assert "yes 1" not in text
    assert main(["preview", "--model", str(tiny_model_folder), "--prepared", str(folder), "--row", "7"]) == 2
    with pytest.raises(UsageError, match="no window holds row 9"):
        windows_of(PreparedSet(folder), ChatTokenizer.from_folder(tiny_model_folder), rows=["9"])


@pytest.mark.parametrize("name", ["dpo", "kto", "reward", "prm", "lora_chat"])
def test_the_file_of_any_training_command_is_taken(name: str, tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    recipe = Path(__file__).parents[3] / "recipes" / f"{name}.yaml"
    assert main(["preview", "--config", str(recipe), "--model", str(tiny_model_folder), "--data", str(data)]) == 0
