"""One HTML file about a run, or about several side by side: everything in it, nothing fetched, no script needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignite.errors import UsageError
from alignite.evaluation.report import comparison, curves, sections
from alignite.evaluation.report.document import document
from alignite.evaluation.report.markup import Html, tag
from alignite.evaluation.report.run_files import Run, read_run
from alignite.evaluation.report.summary import adapter_words, base_model, data_files, status
from alignite.files import write_file

MOST_RUNS = 24
_ABOUT_CURVES = (
    "Faint: every logged value. Strong: their exponential moving average over the number of values that a chart names."
)


def write_report(runs: Sequence[str | Path], output: str | Path) -> None:
    """Write a report on run folders; several are compared.

    Raises:
        UsageError: no run, or too many for their curves to be told apart. DataError: a folder holds no run.
        ResourceError: the file cannot be written.
    """
    folders = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not 1 <= len(folders) <= MOST_RUNS:
        raise UsageError(f"{len(folders)} runs are given", fix=f"give 1 to {MOST_RUNS} run folders")
    write_file(Path(output), render([read_run(folder) for folder in folders]))


def render(runs: Sequence[Run]) -> Html:
    """The page; the same folders give the same bytes."""
    return _one(runs[0]) if len(runs) == 1 else _several(runs)


def _one(run: Run) -> Html:
    state = status(run)
    head = tag(
        "header",
        tag("p", "alignite run", class_="kicker"),
        tag("h1", run.name, " ", sections.pill(state)),
        tag("p", _subject(run)),
        tag("p", state.why, class_="why") if state.why else "",
    )
    charts = curves.draw_run(run)
    parts = [
        sections.faults(run),
        sections.tiles(run),
        sections.section("Curves", tag("div", *charts, class_="charts"), note=_ABOUT_CURVES) if charts else "",
        sections.evaluations(run),
        sections.samples(run),
        sections.data(run),
        sections.configuration(run),
        sections.history(run),
    ]
    return _page(f"{run.name} · alignite", [head, *parts])


def _subject(run: Run) -> str:
    """What was trained on what, in a sentence."""
    model = base_model(run)
    files = data_files(run, "data")
    words = [adapter_words(run) or "Training", "on", model or "a model that was given in Python"]
    more = f" and {len(files) - 3} more files" if len(files) > 3 else ""
    return " ".join([*words, "with", ", ".join(files[:3]) + more] if files else words)


def _several(runs: Sequence[Run]) -> Html:
    names = comparison.run_names(runs)
    head = tag(
        "header",
        tag("p", "alignite runs", class_="kicker"),
        tag("h1", f"{len(runs)} runs side by side"),
        comparison.overview(runs, names),
    )
    charts = curves.draw_runs(runs, names)
    parts = [
        comparison.final_numbers(runs, names),
        sections.section("Curves", curves.legend(runs, names), tag("div", *charts, class_="charts"), note=_ABOUT_CURVES)
        if charts
        else "",
        comparison.configurations(runs, names),
        comparison.answers(runs, names),
        comparison.data_sets(runs, names),
        comparison.environments(runs, names),
        comparison.all_faults(runs, names),
    ]
    return _page(f"{len(runs)} runs · alignite", [head, *parts])


def _page(title: str, parts: Sequence[object]) -> Html:
    here = Path(__file__).parent
    return document(title, parts, here / "page.css", here / "page.js")
