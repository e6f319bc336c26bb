"""`alignite preview` as a user runs it: plain, on a coloured terminal, as a page, as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from alignite.cli.main import main
from alignite.cli.preview_words import visible
from alignite.config import SFTConfig
from alignite.data import ChatTokenizer, prepare_sft
from alignite.data.survey import Piece

TAGS = '</style></span><script>alert(1)</script> <img src=http://x.test/a.png> & "q" '
NASTY = f"{TAGS}\x1b[31mred\x1b]0;t\x07 \u202eback"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preview") / "rows.jsonl"
    rows = [
        ("오늘 날씨는 어때요?", "  맑고\t따뜻합니다. " + "바람이 조금 붑니다. " * 6),
        (NASTY, "say <|im_end|> twice"),
        ("again", "and again"),
        ("again", "and again"),
        ("Tell me a story.", "Once upon a time. " * 100),
        ("x" * 900, "too long"),
    ]
    lines = [json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False) for prompt, answer in rows]
    path.write_text("\n".join([*lines, "{broken"]), encoding="utf-8")
    return path


def words(model: Path, data: Path, *more: str) -> list[str]:
    return [
        "preview",
        "--model",
        str(model),
        "--data",
        str(data),
        "--max_length",
        "800",
        "--on_bad_row",
        "error",
        *more,
    ]


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    return kept | extra


def plain(arguments: list[str], env: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "alignite", *arguments]
    done = subprocess.run(command, capture_output=True, env=env, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def on_a_terminal(arguments: list[str], env: Mapping[str, str]) -> str:
    """What the command writes to a terminal of its own; progress goes elsewhere."""
    outer, inner = os.openpty()
    command = [sys.executable, "-m", "alignite", *arguments]
    with subprocess.Popen(command, stdin=inner, stdout=inner, stderr=subprocess.PIPE, env=env) as running:
        os.close(inner)
        found = b""
        while True:
            try:
                chunk = os.read(outer, 1 << 16)
            except OSError:  # Linux says so when the last writer is gone
                break
            if not chunk:
                break
            found += chunk
        os.close(outer)
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 0
    return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("width", [80, 200])
def test_without_a_terminal_marks_stand_for_colours_and_lines_fit(
    width: int, tiny_model_folder: Path, data: Path
) -> None:
    text = plain(words(tiny_model_folder, data), environment(COLUMNS=str(width)))
    assert "\x1b" not in text
    assert all(character.isprintable() or character == "\n" for character in text)
    lines = text.split("\n")
    longest = max(cell_len(line) for line in lines)
    assert width * 0.9 < longest <= width
    assert not any(line.endswith(" ") for line in lines)
    assert "⟦··맑고⇥   따뜻합니다." in text
    assert "‹<|im_end|>›⟧⏎" in text
    assert "say <|im_end|> twice‹<|im_end|>›" in text.replace("\n  ", "")
    assert "␛[31mred" in text
    assert "\\u202eback" in text
    assert "✂ cut here" in text
    assert re.search(r"\.\.\. [\d,]+ tokens, [\d,]+ of them scored \.\.\.", text)
    assert "`alignite sft` stops at a row that cannot be used" in " ".join(lines)
    assert f"{data.name}:4={data}:3" in re.sub(r"\s", "", text)


def test_on_a_terminal_what_is_scored_has_a_colour(tiny_model_folder: Path, data: Path) -> None:
    env = environment(COLUMNS="120", TERM="xterm-256color")
    text = on_a_terminal(words(tiny_model_folder, data, "--row", "2"), env)
    body = text[text.index("again") - 40 :]
    assert "⟦" not in text
    assert "‹" not in text
    assert "\x1b[1;32mand again\x1b[0m" in body
    assert "\x1b[30;42m<|im_end|>\x1b[0m" in body
    assert "\x1b[36m<|im_end|>\x1b[0m" in body
    assert re.search(r"user\x1b\[2m⏎\x1b\[0m\nagain|user\x1b\[2m⏎\x1b\[0m\n  again", body)


@pytest.mark.parametrize("extra", [{"NO_COLOR": "1", "TERM": "xterm-256color"}, {"TERM": "dumb"}])
def test_a_terminal_without_colours_gets_what_a_file_gets(
    extra: dict[str, str], tiny_model_folder: Path, data: Path
) -> None:
    arguments = words(tiny_model_folder, data)
    expected = plain(arguments, environment(COLUMNS="100", TERM="xterm-256color"))
    assert on_a_terminal(arguments, environment(COLUMNS="100", **extra)) == expected


def test_an_ascii_terminal_gets_numbers_for_what_it_lacks(tiny_model_folder: Path, data: Path) -> None:
    text = plain(words(tiny_model_folder, data, "--row", "0"), environment(PYTHONIOENCODING="ascii", COLUMNS="90"))
    assert text.isascii()
    assert "\\ub9d1" in text


def test_json_has_the_numbers_that_preparing_reports(
    tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(words(tiny_model_folder, data, "--json", "--num_rows", "2")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    seen: dict[str, Any] = json.loads(out)
    config = SFTConfig(max_length=800, on_bad_row="skip")
    report = prepare_sft(data, ChatTokenizer.from_folder(tiny_model_folder), config, tmp_path / "p").report
    assert seen["report"] == {name: report[name] for name in seen["report"]}
    assert (report["rows"], report["used"], seen["bad"]["count"], seen["duplicates"]["count"]) == (7, 5, 1, 1)
    assert seen["tokens"]["rows"] == 6
    assert seen["tokens"]["max"] > 800
    assert [row["row"] for row in seen["rows"]] == [0, 1]


class Page(HTMLParser):
    """A page's tags, attributes and text, the style's left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


def test_the_page_is_whole_and_shows_text_as_text(tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    assert main(words(tiny_model_folder, data, "--html", str(path))) == 0
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    ours = (
        "html head meta link title style body main header p h1 h2 h3 aside dl div dt dd b i span section article footer"
    )
    assert {tag for tag, _ in page.seen} <= {*ours.split(), "table", "thead", "tbody", "tr", "th", "td"}
    for _, attributes in page.seen:
        assert not {"src", "onload", "onclick", "style"} & set(attributes)
        assert attributes.get("href", "data:,") == "data:,"
    assert "url(" not in text
    assert "@import" not in text
    policy = next(found["content"] for tag, found in page.seen if "http-equiv" in found)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "prefers-color-scheme: dark" in text
    assert f"{TAGS}␛[31mred␛]0;t␇ \\u202eback" in page.words
    # Rows are whole, however long: each token has its place and id.
    story = re.sub("✂.*follow", "", page.words.split("row 4 ")[1].split("row 5 ")[0])
    assert story.count("Once upon a time.") == 100
    titles = [found["title"] for tag, found in page.seen if "title" in found]
    tokens = ChatTokenizer.from_folder(tiny_model_folder)
    assert f"position 0, id {tokens.encode('<|im_start|>')[0]}" in titles
    korean = tokens.encode("맑")
    assert any(str(title).endswith(f"ids {' '.join(map(str, korean))}, scored") for title in titles)
    classes = [found.get("class") or "" for tag, found in page.seen]
    assert {kind for name in classes for kind in name.split()} >= {"s", "o", "c", "l", "x", "who", "cut"}


def test_white_space_is_visible_where_a_reader_would_miss_it() -> None:
    def shown(*texts: str) -> list[str]:
        pieces = [Piece(text, 0, [1], False, "text") for text in texts]
        return ["".join(part for part, _ in parts) for parts in visible(pieces)]

    assert shown("a b", "  c", " \n", "  d e ") == ["a b", "··c", "·⏎\n", "··d e·"]
    assert shown(" ", " ", "x") == ["·", "·", "x"]
    assert shown("\t\r\x00\x7f\x85\u00a0\u2028\ufeff\U000e0001") == ["⇥\t␍␀␡\\u0085\\u00a0\\u2028\\ufeff\\U000e0001"]
    assert shown("👩\u200d👩 한") == ["👩\u200d👩 한"]
    assert shown("", "a", "") == ["", "a", ""]


def test_a_training_config_is_taken_and_a_wrong_key_is_not(
    tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    start = f"model: {tiny_model_folder}\ndata: [{data}]\nlearning_rate: 1e-4\nuse_peft: true\non_bad_row: skip\n"
    file.write_text(start + "max_length: 800\n")
    assert main(["preview", "--config", str(file), "--num_rows", "0"]) == 0
    out, _ = capsys.readouterr()
    assert "stops" not in out
    assert "of at most 800 tokens" in out
    for wrong, message in (("lerning_rate: 1\n", "did you mean learning_rate"), ("lora_r: x\n", "a whole number")):
        file.write_text(start + wrong)
        assert main(["preview", "--config", str(file)]) == 2
        _, err = capsys.readouterr()
        assert f"{file}:6" in err
        assert message in err
    assert main(["preview", "--learning_rate", "1"]) == 2


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--html", "rows.jsonl"], 2, "must end with .html"),
        (["--row", "two"], 2, "file:line"),
        (["--row", "77"], 2, "there is no row 77"),
        (["--num_rows", "-1"], 2, "at least 0"),
        (["--prompt_column", "prompt"], 2, "given alone"),
        (["--packing", "ffd"], 2, "none, bfd"),
    ],
)
def test_what_cannot_be_taken(
    more: list[str], code: int, message: str, tiny_model_folder: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny_model_folder, data, *more)) == code
    assert message in capsys.readouterr().err


def test_model_and_data_are_needed(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "--model", str(tiny_model_folder)]) == 2
    assert "no data is given" in capsys.readouterr().err
    assert main(["preview", "--data", "x"]) == 2
    assert "no model is given" in capsys.readouterr().err
    assert main(["preview", "--model", str(tiny_model_folder), "--data", "nowhere.jsonl"]) == 3


def test_neither_torch_nor_transformers_is_imported(tiny_model_folder: Path, data: Path, tmp_path: Path) -> None:
    arguments = words(tiny_model_folder, data, "--html", str(tmp_path / "page.html"))
    code = (
        "import sys\nfrom alignite.cli.main import main\n"
        f"assert main({arguments!r}) == 0\nassert main({[*arguments[:-2], '--json']!r}) == 0\n"
        "print('LOADED', [m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
