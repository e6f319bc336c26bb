"""The ``alignite`` command: finds the subcommand, runs it, turns errors into words and exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from alignite.cli.options import stderr
from alignite.errors import AligniteError, ResourceError, UsageError

COMMANDS = {
    "sft": "fine-tune a model on conversations",
    "reward": "train a reward model on pairs and rankings",
    "prm": "train a process reward model on rated steps",
    "dpo": "train on pairs and rankings by direct preference optimization",
    "rrhf": "train on rankings: rank by mean log-probability, imitate the best",
    "slic": "train on pairs and rankings by SLiC-HF",
    "preference": "train on preferences by any objective: dpo, simpo, orpo, cpo, kto, rrhf, slic, ...",
    "evaluate": "say how good reward models are on pairs, rankings or rated steps",
    "score": "write rows again with the scores of their replies",
    "serve": "serve reward models over HTTP, on this machine",
    "prepare": "turn data sets of any format into packed token windows",
    "export": "write a prepared set as Parquet or for Megatron",
    "preview": "show what a model would be trained on, token by token",
    "instruct": "turn labelled rows into instructions by templates, with demonstrations",
    "convert": "write data of one format in another",
    "mix": "show how often a mixture draws from each source, and write what it draws",
    "check": "try a run without leaving anything behind",
    "generate": "answer prompts with a model",
    "report": "write one HTML page about a run, or about several side by side",
    "merge": "add an adapter into its base model's weights",
    "import-gguf": "turn a GGUF file into a folder that transformers loads",
    "doctor": "show what this machine has and whether alignite works on it",
}


def usage() -> str:
    """What ``alignite --help`` prints."""
    lines = ["usage: alignite COMMAND [--option value ...]", "", "Adapts large language models.", "", "commands:"]
    lines += [f"  {name:<13}{text}" for name, text in COMMANDS.items()]
    lines += ["", "`alignite COMMAND --help` lists a command's options. `alignite --version` prints the version."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Returns:
        The exit code: 0; 2 usage, 3 data, 4 model, 5 numerics, 6 resource, 7 checkpoint, 70 internal,
        75 stopped and saved, 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.WARNING)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except AligniteError as error:
        _trace()
        stderr(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as error:
        print(f"\n{error or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, which is its right; nothing more can be written.
        with contextlib.suppress(OSError, ValueError):  # a stdout that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # What the machine refuses and no room has foreseen: a name that is too long, a disk that goes away.
        _trace()
        stderr(f"error: {error.filename or 'the system'}: {error.strerror or error}")
        return ResourceError.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: a bug, said in one line
        _trace()
        stderr(f"error: {type(error).__name__}: {error}")
        print("  this is a bug in alignite; ALIGNITE_TRACEBACK=1 shows where it happened", file=sys.stderr)
        return 70


def _run(words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from alignite import __version__

        print(f"alignite {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        is_sft = command in ("train", "finetune", "fine-tune", "tune")
        near = ["sft"] if is_sft else get_close_matches(command, COMMANDS, 1)
        raise UsageError(
            f"unknown command {command!r}",
            fix=f"did you mean {near[0]!r}?" if near else f"commands are {', '.join(COMMANDS)}",
        )
    module = import_module(f"alignite.cli.{command.replace('-', '_')}")
    try:
        return int(module.run(rest))
    except SystemExit as exit_:  # argparse's --help
        return int(exit_.code or 0)


def _trace() -> None:
    if os.environ.get("ALIGNITE_TRACEBACK"):
        import traceback

        traceback.print_exc()
