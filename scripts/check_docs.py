"""Check the documents: links lead somewhere, commands and options exist, and the site's navigation has every page.

Lines that can be typed are read as the program would read them, and YAML blocks as configs.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import yaml

from alignite import config
from alignite.cli import check
from alignite.cli.main import COMMANDS
from alignite.cli.options import parse
from alignite.config.preference import METHOD_CONFIGS
from alignite.errors import AligniteError

ROOT = Path(__file__).parent.parent
CONFIGS = {
    "sft": config.SFTConfig,
    "reward": config.RewardConfig,
    "prm": config.PRMConfig,
    "dpo": config.DPOConfig,
    "rrhf": config.RRHFConfig,
    "slic": config.SLiCConfig,
    "preference": config.PreferenceConfig,  # and the config of its --objective
    "evaluate": config.EvaluateConfig,
    "score": config.ScoreConfig,
    "serve": config.ServeConfig,
    "prepare": config.PrepareConfig,
    "export": config.ExportConfig,
    "preview": config.PreviewConfig,
    "instruct": config.InstructConfig,
    "convert": config.ConvertConfig,
    "mix": config.MixConfig,
    "check": config.SFTConfig,
    "generate": config.GenerateConfig,
    "report": config.ReportConfig,
    "merge": config.MergeConfig,
    "import-gguf": config.ImportGgufConfig,
    "doctor": config.DoctorConfig,
}
COMMAND = re.compile(r"alignite ([a-z][a-z-]*)((?:(?:\\\n)|[^\n`|<])*)")
CHECKED = re.compile(rf"alignite check (?=(?:{'|'.join(check.COMMANDS)}|preference)\b)")
EXAMPLE = re.compile(r"^ *(?:until |torchrun .*-m )?alignite ((?:(?:\\\n)|[^\n`|<>;])*)", re.MULTILINE)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
RUN = re.compile(r"^# Run: +alignite (.*?)(?: --config .*)?$", re.MULTILINE)
SNIPPET = re.compile(r'^--8<-- "(.*)"$', re.MULTILINE)


def faults(path: Path) -> tuple[list[str], int]:
    """What is wrong in a document, and how many links and options were looked at."""
    # `check` before another command takes that one's options.
    text = CHECKED.sub("alignite ", path.read_text(encoding="utf-8"))
    found, seen = [], 0
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            seen += 1
            if not (path.parent / link).exists():
                found.append(f"{path.relative_to(ROOT)}: no such file: {link}")
    for command, rest in COMMAND.findall(text):
        if command not in COMMANDS:
            continue
        known = {field.name for kind in kinds(command, rest.split()) for field in fields(kind)}
        known |= {"config", "json", "help"} | ({"objective"} if command == "preference" else set())
        for option in re.findall(r"(?<!\S)--([A-Za-z_-]+)", rest):
            seen += 1
            if option not in known:
                found.append(f"{path.relative_to(ROOT)}: alignite {command} has no option --{option}")
    for fault, checked in (*map(example, EXAMPLE.findall(text)), *map(yaml_block, YAML_BLOCK.findall(text))):
        seen += checked
        if fault:
            found.append(f"{path.relative_to(ROOT)}: {fault}")
    return found, seen


def kinds(command: str, words: list[str]) -> list[type]:
    """The config class of a command line; all of them for ``preference`` without its objective."""
    if command != "preference":
        return [CONFIGS[command]]
    for word, name in pairwise(words):
        if word == "--objective" and name in METHOD_CONFIGS:
            return [METHOD_CONFIGS[name]]
    return list(METHOD_CONFIGS.values())


def example(line: str) -> tuple[str, int]:
    """What is wrong with a line that can be typed, and how many of its options were looked at."""
    try:
        command, *words = shlex.split(line.replace("\\\n", " "), comments=True) or [""]
        if command not in COMMANDS or "--help" in words:
            return "", 0
        if "--config" in words:  # the file need not be here
            at = words.index("--config")
            del words[at : at + 2]
        (kind,) = kinds(command, words)
        if command == "preference":
            at = words.index("--objective")
            del words[at : at + 2]
        parse(kind, f"alignite {command}", "", words)[0].validate()
    except (AligniteError, ValueError) as error:
        return f"`alignite {line.strip()}` is refused: {error}", 1
    return "", sum(word.startswith("--") for word in words)


def yaml_block(text: str) -> tuple[str, int]:
    """What is wrong with a YAML block, and how many keys it has: a config of the command after ``Run:``, or of sft."""
    text = SNIPPET.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), text)
    command, *words = found[1].split() if (found := RUN.search(text)) else ["sft"]
    try:
        values = yaml.safe_load(text)
        kinds(command, words)[0].from_dict(values).validate()
    except (AligniteError, yaml.YAMLError, TypeError) as error:
        return f"a YAML block is no config of alignite {command}: {error}", 1
    return "", len(values)


def not_in_navigation() -> list[str]:
    """Pages that the site would hide, and pages that it names and does not have."""
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    return [f"mkdocs.yml: nav and docs/ disagree about {page}" for page in sorted(named ^ there)]


def main() -> int:
    assert set(CONFIGS) == set(COMMANDS)
    documents = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benches/*.md")])
    bad, total = not_in_navigation(), 0
    for path in documents:
        found, seen = faults(path)
        bad += found
        total += seen
    print("\n".join(bad) if bad else f"{total} links and options in {len(documents)} documents hold")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
