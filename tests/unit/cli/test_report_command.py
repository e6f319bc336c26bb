"""``alignite report`` as a user types it, on made runs and on a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browser import PageParser
from run_folders import make_run

from alignite.cli.main import main
from alignite.config import SFTConfig


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(("report", *words))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_one_run_and_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    code, out, _ = call(capsys, "--run", str(one))
    assert (code, out) == (0, f"report of {one} in {one / 'report.html'}\n")
    assert "Finished" in PageParser((one / "report.html").read_text()).text
    output = tmp_path / "new" / "both.html"
    code, out, _ = call(capsys, "--run", str(one), str(two), "--output", str(output), "--json")
    assert code == 0
    assert json.loads(out) == {"output": str(output), "runs": [str(one), str(two)]}
    assert "2 runs side by side" in PageParser(output.read_text()).text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no run is given"),
        (["--run", "{one}", "{two}"], 2, "add --output"),
        (["--run", "{one}", "--output", "{one}/metrics.jsonl"], 2, "must end in .html"),
        (["--run", "{none}"], 3, "no such folder"),
        (["--run", "{empty}"], 3, "the folder holds no run"),
        (["--run", "{one}", "--output", "{one}/config.yaml/x.html"], 6, "cannot write"),
    ],
)
def test_what_cannot_be_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    places = {name: str(make_run(tmp_path / name, 3)) for name in ("one", "two")}
    (tmp_path / "empty").mkdir()
    places |= {"none": str(tmp_path / "none"), "empty": str(tmp_path / "empty")}
    before = (tmp_path / "one" / "metrics.jsonl").read_bytes()
    found, _, err = call(capsys, *(word.format(**places) for word in words))
    assert (found, says in err, "fix: " in err) == (code, True, True), err
    assert (tmp_path / "one" / "metrics.jsonl").read_bytes() == before


def test_it_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    code = (
        f"import sys\nfrom alignite.cli.main import main\nassert main(['report', '--run', {str(run)!r}]) == 0\n"
        "print([name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_real_run(tmp_path: Path, tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from alignite.trainers.sft import SFTTrainer

    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": "word " * (1 + n % 4)}]}
        for n in range(40)
    ]
    run = tmp_path / "run"
    config = SFTConfig(
        output_dir=str(run),
        max_steps=60,
        learning_rate=5e-2,
        use_peft=True,
        eval_steps=20,
        save_steps=30,
        sample_tokens=8,
    )
    SFTTrainer(str(tiny_model_folder), config, rows[:32], rows[32:]).train()
    assert call(capsys, "--run", str(run))[0] == 0
    page = PageParser((run / "report.html").read_text())
    assert "Not in this report" not in page.text
    assert "run Finished" in page.text
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in metrics if "eval_loss" in line]
    assert [line["step"] for line in held_out] == [20, 40, 60]
    shown = next(rows for rows in page.tables if rows[0][0] == "update")
    loss = shown[0].index("eval_loss")
    assert [cells[loss] for cells in shown[1:]] == [f"{line['eval_loss']:#.4g}" for line in held_out]
    last = [line for line in metrics if "loss" in line][-1]
    assert f"Training loss {last['loss']:#.4g} at update 60" in page.text
    data = json.loads((run / "data.json").read_text())
    cells = {cells[0]: cells[1:] for rows in page.tables for cells in rows}
    assert cells["rows"] == ["32", "8"]
    assert cells["tokens"] == [f"{data[key]['tokens']:,}" for key in ("train", "eval")]
    assert cells["fingerprint"] == [data[key]["fingerprint"] for key in ("train", "eval")]
    assert cells["checkpoint-60"][1].endswith("B")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert all(" ".join(line["prompt"].split()) in page.text for line in samples)
    card = (run / "README.md").read_text()
    assert data["train"]["fingerprint"] in card
    assert "library_name: peft" in card
