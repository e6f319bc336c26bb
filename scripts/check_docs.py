"""Check that links in the documents lead somewhere and that commands in them exist, option by option."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from pathlib import Path

from alignite import config
from alignite.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
CONFIGS = {
    "sft": config.SFTConfig,
    "generate": config.GenerateConfig,
    "merge": config.MergeConfig,
    "import-gguf": config.ImportGgufConfig,
    "doctor": config.DoctorConfig,
}
COMMAND = re.compile(r"alignite ([a-z][a-z-]*)((?:(?:\\\n)|[^\n`|<])*)")


def faults(path: Path) -> tuple[list[str], int]:
    """What is wrong in a document, and how many links and options were looked at."""
    text = path.read_text(encoding="utf-8")
    found, seen = [], 0
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in link:
            seen += 1
            if not (path.parent / link).exists():
                found.append(f"{path.relative_to(ROOT)}: no such file: {link}")
    for command, rest in COMMAND.findall(text):
        if command not in COMMANDS:
            continue
        known = {field.name for field in fields(CONFIGS[command])} | {"config", "json", "help"}
        for option in re.findall(r"(?<!\S)--([A-Za-z_-]+)", rest):
            seen += 1
            if option not in known:
                found.append(f"{path.relative_to(ROOT)}: alignite {command} has no option --{option}")
    return found, seen


def main() -> int:
    assert set(CONFIGS) == set(COMMANDS)
    documents = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benches/*.md")])
    bad, total = [], 0
    for path in documents:
        found, seen = faults(path)
        bad += found
        total += seen
    print("\n".join(bad) if bad else f"{total} links and options in {len(documents)} documents hold")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
