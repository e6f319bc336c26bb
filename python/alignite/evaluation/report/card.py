"""The model card beside saved weights: README.md with the hub's front matter, from what the run's folder says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from alignite.data.hub_access import HubName
from alignite.errors import DataError
from alignite.evaluation.report.markup import clean
from alignite.evaluation.report.run_files import DataReport, Run, read_run
from alignite.evaluation.report.summary import (
    adapter_words,
    best_of,
    changed_options,
    data_files,
    last_step,
    sessions,
)
from alignite.evaluation.report.summary import (
    base_model as base_of,
)
from alignite.evaluation.report.wording import NOTHING, moment, number, option_value, plural, share
from alignite.files import write_file

CARD_FILE = "README.md"
_MARK = "<!-- Written by alignite, and again when the run goes on; without this line the file is left alone. -->"
_HERE = "path/to/this/folder"


NAMES = {
    "sft": "supervised fine-tuning",
    "dpo": "DPO",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "cpo": "CPO",
    "kto": "KTO",
    "rrhf": "RRHF",
    "slic": "SLiC-HF",
    "coh": "Chain of Hindsight",
    "quark": "Quark",
    "figa": "FIGA",
    "contrast": "contrast of instructions",
    "hir": "hindsight instruction relabelling",
    "stable_alignment": "stable alignment",
}
"""Methods as people call them."""


def write_card(folder: Path, run_dir: Path, *, kind: str, base_model: str | None, merged: bool = False) -> None:
    """Write ``folder/README.md``. One that a person wrote, or took over by deleting its last line, is left alone.

    Args:
        folder: holds the weights. kind: ``adapter`` or ``model``.
        run_dir: the run that made them; what it does not say the card leaves out.
        base_model: the folder or hub id of the model that was trained.
        merged: whether the model is its base with the run's adapter in its weights.

    Raises:
        ResourceError: the file cannot be written.
    """
    target = Path(folder) / CARD_FILE
    if target.exists() and _MARK not in target.read_text(encoding="utf-8", errors="replace"):
        return
    try:
        run = read_run(run_dir)
    except DataError:  # weights of a trainer that has not trained
        run = Run(Path(run_dir), Path(run_dir).name)
    same = Path(folder).resolve() == Path(run_dir).resolve()
    place, base = str(folder) if same else _HERE, base_model or base_of(run)
    write_file(target, render_card(run, kind, base, place, merged, scores=_scores(Path(folder))))


def _scores(folder: Path) -> bool:
    """Whether the weights in a folder give scores, not texts: a classifier's, or an adapter of one."""
    found: dict[str, object] = {}
    for name in ("config.json", "adapter_config.json"):
        try:
            found |= json.loads((folder / name).read_bytes())
        except (OSError, ValueError, TypeError):
            continue  # loading says what is wrong
    kinds = found.get("architectures")
    named = kinds if isinstance(kinds, list) else []
    return found.get("task_type") == "SEQ_CLS" or any(str(kind).endswith("Classification") for kind in named)


def render_card(
    run: Run, kind: str, base: str | None, place: str, merged: bool = False, *, scores: bool = False
) -> str:
    """The card's text; ``place`` is the folder that its examples name, ``scores`` whether it is a reward model's."""
    hub = hub_id(base)
    adapter = adapter_words(run) or "A LoRA adapter"
    words = adapter if kind == "adapter" else f"{adapter} in the weights of its base" if merged else "All weights"
    parts = [
        _front_matter(run, kind, base, hub, scores),
        f"# {_plain(run.name)}",
        f"{words}, trained with alignite{_how(run, scores)} on "
        f"{_code(base) if base else 'a model that was given in Python'}.",
        (_scoring if scores else _usage)(run, kind, base or "path/to/base", place),
        _data(run),
        _evaluation(run),
        _configuration(run),
        _history(run),
        _versions(run),
        _MARK,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _how(run: Run, scores: bool) -> str:
    if run.method == "prm":
        return " to score the steps of solutions"
    if scores:
        return " to score replies"
    name = NAMES.get(run.method, clean(run.method))
    return f" by {name}" if name else ""


def hub_id(base: str | None) -> str | None:
    """The hub's id of a base: itself when it is one, or the repository whose cached copy a folder is."""
    if not base:
        return None
    cached = re.search(r"models--([\w.-]+?)--([\w.-]+)/snapshots/", base, re.ASCII)
    if cached is not None:
        return f"{cached[1]}/{cached[2]}"
    found = HubName.parse(base) if not Path(base).exists() else None
    return found.repo if found is not None else None


def _front_matter(run: Run, kind: str, base: str | None, hub: str | None, scores: bool) -> str:
    import yaml

    # The hub refuses a card whose base_model is a path, so a local folder goes by its name.
    local = re.sub(r"[^\w.-]+", "-", Path(base).name, flags=re.ASCII).strip("-.") if base else ""
    name = hub or local
    values: dict[str, object] = {"library_name": "peft" if kind == "adapter" else "transformers"}
    task = "text-classification" if scores else "text-generation"
    tags = ["alignite", "reward-model" if scores else clean(run.method), task]
    tags = [tag for tag in tags if tag]
    if name:
        values |= {"base_model": name, "base_model_relation": "adapter" if kind == "adapter" else "finetune"}
    if kind == "adapter":
        tags += ["lora", "transformers"] + ([f"base_model:adapter:{name}"] if name else [])
    sources = [HubName.parse(item, rows=True) for item in data_files(run, "data") if not Path(item).exists()]
    sets = list(dict.fromkeys(item.repo for item in sources if item is not None))
    values |= {"pipeline_tag": task, "tags": tags} | ({"datasets": sets} if sets else {})
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=False)
    hint = "" if hub or not name else "# base_model is a local folder's name: put the hub's id there to publish\n"
    return f"---\n{hint}{text}---"


def _scoring(run: Run, kind: str, base: str, place: str) -> str:
    """How a reward model is used; a process reward model's config has its classes."""
    steps = "num_classes" in run.config
    option = f"--{'process_' if steps else ''}reward_model={_word(place)}"
    option += f" --base_model={_word(base)}" if kind == "adapter" else ""
    shell = f"alignite score {option} --data rows.jsonl --output scored.jsonl"
    name = "ProcessRewardModel" if steps else "RewardModel"
    given = repr(clean(place)) + (f", base={clean(base)!r}" if kind == "adapter" else "")
    python = [f"from alignite import {name}", "", f"reward = {name}.from_folder({given})"]
    python.append("print(reward.score(['What is 2+2?'], ['4']))")
    return "\n\n".join(["## Use", _fence(shell, "sh"), _fence("\n".join(python), "python")])


def _usage(_: Run, kind: str, base: str, place: str) -> str:
    # --option=VALUE, since a folder's name may begin with a dash.
    option = {"adapter": f"--model={_word(base)} --adapter={_word(place)}", "model": f"--model={_word(place)}"}[kind]
    shell = f"alignite generate {option} --prompt 'Who are you?'"
    pinned = HubName.parse(base) if not Path(base).exists() else None
    name = repr(clean(base)) if pinned is None else repr(pinned.repo)
    name += f", revision={pinned.revision!r}" if pinned is not None and pinned.revision is not None else ""
    own = repr(clean(place))
    whole = own if kind == "model" else name
    python = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    python.append(f"tokenizer = AutoTokenizer.from_pretrained({whole})")
    python.append(f"model = AutoModelForCausalLM.from_pretrained({whole})")
    if kind == "adapter":
        python = ["from peft import PeftModel", *python, f"model = PeftModel.from_pretrained(model, {own})"]
    return "\n\n".join(["## Use", _fence(shell, "sh"), _fence("\n".join(python), "python")])


def _data(run: Run) -> str:
    if not run.data:
        return ""
    parts = ["## Data"]
    titles = {"train": ("Training", "data"), "eval": ("Held-out", "eval_data")}
    rows = []
    for key, report in run.data.items():
        title, option = titles[key]
        files = ", ".join(_code(item) for item in data_files(run, option)) or "rows given in Python"
        rows.append([title, files, *_numbers(report), _code(report.fingerprint) if report.fingerprint else NOTHING])
    head = ["", "files", "rows", "used", "cut", "left out", "tokens", "scored tokens", "fingerprint"]
    parts.append(_table(head, rows, range(2, 8)))
    lost = [
        f"- {number(count.count)} {what}: {_plain(reason)}"
        for what, group in (("left out", run.data["train"].dropped), ("cut", run.data["train"].truncated))
        for reason, count in group.items()
    ] if "train" in run.data else []  # fmt: skip
    if lost:
        parts += ["Of the training rows:", "\n".join(lost)]
    return "\n\n".join(parts)


def _numbers(report: DataReport) -> list[str]:
    counts = report.counts
    tokens, scored = counts.get("tokens"), counts.get("scored_tokens")
    part = f" ({share(scored, tokens)})" if scored is not None and tokens else ""
    lost = [number(sum(item.count for item in group.values())) for group in (report.truncated, report.dropped)]
    return [number(counts.get("rows")), number(counts.get("used")), *lost, number(tokens), number(scored) + part]


def _evaluation(run: Run) -> str:
    rows = []
    for name, series in run.evaluations.items():
        better = best_of(run, name, greater=not name.endswith(("loss", "entropy")))
        best = f"{number(better[0])} (update {better[1]:,})" if better and name != "entropy" else NOTHING
        rows.append([f"eval_{_plain(name)}", number(series.last), f"{int(series.steps[-1]):,}", best])
    if not rows:
        return ""
    return "## Evaluation\n\n" + _table(["metric", "last", "at update", "best"], rows, (1, 2, 3))


def _configuration(run: Run) -> str:
    if not run.config:
        return ""
    rows = [
        [_code(name), _code(option_value(value)), _code(option_value(default))]
        for name, (value, default) in changed_options(run).items()
        if default is not ...  # what is no option may be anybody's secret, and cards are published
    ]
    rest = len(run.options().to_dict()) - len(rows)
    return "\n\n".join(
        [
            "## Configuration",
            _table(["option", "value", "default"], rows) if rows else "",
            f"{plural(rest, 'further option')} {'is' if rest == 1 else 'are'} at the default.",
        ]
    )


def _history(run: Run) -> str:
    items = []
    for session in sessions(run):
        begin, end = session.begin, session.end
        verb = "resumed after" if begin.name == "resume" else "started at"
        line = f"- {verb} update {number(begin.step)}, {moment(begin.time)}"
        if end is not None:
            outcome = " ".join(filter(None, (end.text("outcome"), end.text("reason"))))
            line += f"; ended after update {number(end.step)}: {_plain(outcome)}"
        items.append(line)
    step, tokens = last_step(run), run.train.get("num_tokens")
    if not items and step is None:
        return ""
    resumed = sum(session.begin.name == "resume" for session in sessions(run))
    text = f"{plural(step or 0, 'update')}, {plural(resumed, 'resume')}"
    text += f", {number(tokens.last)} tokens read" if tokens is not None else ""
    return "\n\n".join(["## History", text + ".", "\n".join(items)]).strip()


def _versions(run: Run) -> str:
    last = sessions(run)[-1].begin if sessions(run) else None
    found = {"alignite": version("alignite")}
    if last is not None and last.mapping("versions"):
        found = last.mapping("versions") | last.mapping("machine")
    return "## Versions\n\n" + "\n".join(f"- {_plain(name)}: {_code(value)}" for name, value in found.items())


def _word(value: str) -> str:
    return shlex.quote(clean(value))


def _plain(value: str) -> str:
    """Text as it is, on one line: nothing in it is markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]#!<>&~$])", r"\\\1", " ".join(clean(value).split()))


def _code(value: str) -> str:
    """A code span on one line that no backtick ends."""
    text = " ".join(clean(value).split()) or " "
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _fence(code: str, language: str) -> str:
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{ticks}{language}\n{code}\n{ticks}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    flush = set(right)
    body = [[cell.replace("|", r"\|") for cell in row] for row in rows]  # also inside code spans, GFM says
    rule = ["---:" if index in flush else "---" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
