"""Prepared sets that were damaged, work that is interrupted, processes that fork."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.prepared import PreparedSet
from alignite.data.tokenizer import ChatTokenizer
from alignite.errors import DataError, ResourceError, TemplateError


def rows(count: int = 12) -> list[dict[str, str]]:
    return [{"prompt": f"q{n}", "completion": "answer " * (n % 5 + 1)} for n in range(count)]


@pytest.fixture
def prepared(tiny_model_folder: Path, tmp_path: Path) -> PreparedSet:
    return prepare_sft(rows(), ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.999])
def test_a_flipped_bit_is_found_when_the_set_is_opened(prepared: PreparedSet, share: float) -> None:
    path = prepared.folder / "data-00000.arrow"
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="p"):
        PreparedSet(prepared.folder)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_cut_file_is_found(prepared: PreparedSet, share: float) -> None:
    path = prepared.folder / "data-00000.arrow"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError):
        PreparedSet(prepared.folder)


def test_missing_parts_are_named(prepared: PreparedSet, tmp_path: Path) -> None:
    (prepared.folder / "report.json").unlink()
    with pytest.raises(DataError, match="no prepared set here"):
        PreparedSet(prepared.folder)
    with pytest.raises((DataError, ResourceError)) as error:
        PreparedSet(tmp_path / "nothing-here")
    assert "nothing-here" in str(error.value)


def test_a_damaged_set_is_made_again(prepared: PreparedSet, tiny_model_folder: Path) -> None:
    path = prepared.folder / "data-00000.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = prepare_sft(rows(), ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), prepared.folder)
    assert not again.reused
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    for target in (tmp_path / "file" / "p", Path("/proc/alignite-prepared")):
        with pytest.raises(ResourceError):
            prepare_sft(rows(), tokenizer, SFTConfig(), target)


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% for a in range(9999) %}{{ x }}{% endfor %}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ x" + ".y" * 20000 + " }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_templates_made_to_hang_or_to_overflow_are_refused_soon(
    template: str, tiny_model_folder: Path, tmp_path: Path
) -> None:
    from shutil import copytree

    folder = copytree(tiny_model_folder, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    start = time.monotonic()
    with pytest.raises(TemplateError):
        ChatTokenizer.from_folder(folder).preparer(SFTConfig())
    assert time.monotonic() - start < 15


def test_ctrl_c_stops_it_and_leaves_nothing(tiny_model_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    line = json.dumps({"prompt": "q " * 300, "completion": "a " * 300}) + "\n"
    data.write_text(line * 60_000)
    code = """
import sys
from alignite.config import SFTConfig
from alignite.data.prepare import prepare_sft
from alignite.data.tokenizer import ChatTokenizer
def tell(rows, tokens):
    print(rows, flush=True)
try:
    prepare_sft(sys.argv[1], ChatTokenizer.from_folder(sys.argv[2]), SFTConfig(), sys.argv[3], tell)
except KeyboardInterrupt:
    sys.exit(77)
"""
    words = [str(data), str(tiny_model_folder), str(tmp_path / "p")]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()  # it is at work
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 77
    process.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_an_error_in_the_progress_function_is_the_callers(tiny_model_folder: Path, tmp_path: Path) -> None:
    def broken(rows: int, tokens: int) -> None:
        raise RuntimeError("not my day")

    with pytest.raises(RuntimeError, match="not my day"):
        prepare_sft(rows(), ChatTokenizer.from_folder(tiny_model_folder), SFTConfig(), tmp_path / "p", broken)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads, which is what is tried
def test_it_works_in_a_forked_process(prepared: PreparedSet, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Data loaders fork after the parent has used its thread pool."""
    expected = prepared.arrays([3])[0].tolist()
    tokenizer = ChatTokenizer.from_folder(tiny_model_folder)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            again = prepare_sft(rows(), tokenizer, SFTConfig(), tmp_path / "child")
            code = 0 if again.arrays([3])[0].tolist() == prepared.arrays([3])[0].tolist() == expected else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the forked process hangs")
