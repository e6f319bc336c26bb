"""The parts of a report on several runs side by side: a column a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from alignite.evaluation.report.charts import swatch
from alignite.evaluation.report.markup import Html, join, table, tag
from alignite.evaluation.report.run_files import DataReport, Run
from alignite.evaluation.report.sections import DATA_ROWS, faults, pill, said, section
from alignite.evaluation.report.summary import Figure, figures, sessions, status
from alignite.evaluation.report.wording import NOTHING, option_value, plural

_MOST_PROMPTS = 20


def run_names(runs: Sequence[Run]) -> dict[int, str]:
    """A name a run: its folder's, with as many folders above as tell it from the others."""
    parts = [run.folder.resolve().parts for run in runs]
    names = {}
    for index, own in enumerate(parts):
        length = 1
        while length < len(own) and any(
            other[-length:] == own[-length:] for at, other in enumerate(parts) if at != index
        ):
            length += 1
        names[index] = str(Path(*own[-length:]))
    return names


def overview(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """The runs, their colours and how they stand."""
    rows = [
        [swatch("line", names[index], index), join([pill(status(run)), tag("small", status(run).why)]), str(run.folder)]
        for index, run in enumerate(runs)
    ]
    return table(["run", "state", "folder"], rows, class_="runs")


def final_numbers(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """Final numbers in columns; the best of a row is marked where there is a better."""
    found = [{figure.label: figure for figure in figures(run)} for run in runs]
    labels = list(dict.fromkeys(label for group in found for label in group))
    rows = []
    for label in labels:
        cells = [group.get(label) for group in found]
        best = _best(cells)
        unit = next(cell.unit for cell in cells if cell is not None)
        name = join([label, tag("small", unit)]) if unit else label
        rows.append([name, *(_figure(cell, cell is not None and cell.value == best) for cell in cells)])
    if not rows:
        return Html()
    head = ["", *(names[index] for index in range(len(runs)))]
    shown = table(head, rows, range(1, len(head)), class_="final")
    return section("Final numbers", shown, note="The best of a row is bold, where one can be better.")


def _best(cells: Sequence[Figure | None]) -> float | None:
    values = {cell.value * cell.better for cell in cells if cell is not None and cell.value is not None and cell.better}
    values = {value for value in values if value == value}
    better = next((cell.better for cell in cells if cell is not None), 0)
    return max(values) * better if len(values) > 1 else None


def _figure(cell: Figure | None, is_best: bool) -> object:
    if cell is None:
        return NOTHING
    return join([tag("b", cell.text) if is_best else cell.text, tag("small", cell.note) if cell.note else ""])


def configurations(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """Only the options in which the runs differ."""
    options = list(dict.fromkeys(name for run in runs for name in run.config))
    written = [{name: option_value(value) for name, value in run.config.items()} for run in runs]
    differ = [name for name in options if len({values.get(name) for values in written}) > 1]
    rows = [[tag("code", name), *(values.get(name, NOTHING) for values in written)] for name in differ]
    if not options:
        return Html()
    same = len(options) - len(differ)
    note = f"{plural(same, 'option')} {'is' if same == 1 else 'are'} the same in all runs and not shown."
    shown = table(["option", *(names[index] for index in range(len(runs)))], rows, class_="compare") if rows else ""
    return section("What differs in the configuration", shown, note=note)


def data_sets(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """The runs' data in columns."""
    head = ["", *(names[index] for index in range(len(runs)))]
    parts = []
    for key, title in (("train", "Training"), ("eval", "Held-out")):
        reports = [run.data.get(key) for run in runs]
        if any(report is not None for report in reports):
            rows = [[label, *(_cell(cell, report) for report in reports)] for label, cell in DATA_ROWS]
            parts += [tag("h3", title), table(head, rows, range(1, len(head)))]
    return section("Data", *parts) if parts else Html()


def _cell(cell: Callable[[DataReport], object], report: DataReport | None) -> object:
    return NOTHING if report is None else cell(report)


def answers(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """Prompts that several runs answered, and the answers after training."""
    found = [{sample.prompt: sample for sample in run.samples} for run in runs]
    prompts = list(dict.fromkeys(prompt for group in found for prompt in group))
    shared = [prompt for prompt in prompts if sum(prompt in group for group in found) > 1]
    made = []
    for prompt in shared[:_MOST_PROMPTS]:
        samples = {index: group[prompt] for index, group in enumerate(found) if prompt in group}
        boxes = [said(swatch("line", names[index], index), sample.after) for index, sample in samples.items()]
        reference = next((sample.reference for sample in samples.values() if sample.reference is not None), None)
        boxes += [said("Reference", reference, "reference")] if reference is not None else []
        made.append(
            tag("article", said("Prompt", prompt, "prompt"), tag("div", *boxes, class_="answers"), class_="sample")
        )
    return section("Answers after training", *made) if made else Html()


def environments(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """Versions and machines, only where they differ."""
    found = []
    for run in runs:
        parts = sessions(run)
        last = parts[-1].begin if parts else None
        found.append(last.mapping("versions") | last.mapping("machine") if last is not None else {})
    keys = list(dict.fromkeys(name for values in found for name in values))
    rows = [
        [name, *(values.get(name, NOTHING) for values in found)]
        for name in keys
        if len({values.get(name) for values in found}) > 1
    ]
    if not keys:
        return Html()
    note = "" if rows else "The same in all runs."
    shown = table(["", *(names[index] for index in range(len(runs)))], rows) if rows else ""
    return section("What differs in versions and machine", shown, note=note)


def all_faults(runs: Sequence[Run], names: Mapping[int, str]) -> Html:
    """What could not be shown of each run."""
    made = [join([tag("h3", names[index]), faults(run)]) for index, run in enumerate(runs) if run.faults]
    return section("Not in this report", *made) if made else Html()
