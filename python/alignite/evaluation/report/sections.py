"""The parts of a report on one run, each empty when the run has nothing to say there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from alignite.evaluation.report.markup import Html, join, table, tag
from alignite.evaluation.report.run_files import Count, DataReport, Run, Sample
from alignite.evaluation.report.summary import Figure, Status, changed_options, figures, sessions
from alignite.evaluation.report.wording import NOTHING, duration, moment, number, option_value, plural, share, size

_MOST_SAMPLES = 50
_MOST_CHARACTERS = 6000
_MOST_ROWS = 200
_SETS = {"train": "Training", "eval": "Held-out"}


def section(title: str, *children: object, note: str = "") -> Html:
    """A heading, what it means, and the part itself."""
    return tag("section", tag("h2", title), tag("p", note, class_="lead") if note else "", *children)


def pill(state: Status) -> Html:
    """The run's state as a small label; its word says what its colour says."""
    return tag("span", state.word, class_=f"pill {state.tone}")


def faults(run: Run) -> Html:
    """What could not be shown, and why."""
    if not run.faults:
        return Html()
    items = [tag("li", fault) for fault in run.faults[:20]]
    return tag("aside", tag("b", "Not in this report"), tag("ul", *items))


def tiles(run: Run) -> Html:
    """The final numbers, large."""

    def tile(figure: Figure) -> Html:
        note = "; ".join(filter(None, (figure.unit, figure.note)))
        return tag("div", tag("dt", figure.label), tag("dd", tag("b", figure.text), tag("span", note)))

    found = figures(run)
    return tag("dl", *(tile(figure) for figure in found), class_="tiles") if found else Html()


def evaluations(run: Run) -> Html:
    """Every evaluation in a row."""
    if not run.evaluations:
        return Html()
    names = list(run.evaluations)
    values = {
        name: dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))
        for name, series in run.evaluations.items()
    }
    steps = sorted({step for column in values.values() for step in column})
    best = run.best.get("step")
    rows = []
    for step in steps[-_MOST_ROWS:]:
        label = join([f"{int(step):,}", tag("span", " best", class_="mark") if step == best else ""])
        rows.append([label, *(number(values[name].get(step)) for name in names)])
    note = f"The best checkpoint is the one by {run.best['metric']}." if run.best else ""
    if len(steps) > _MOST_ROWS:
        note += f" The last {_MOST_ROWS} of {len(steps):,} evaluations."
    shown = table(["update", *(f"eval_{name}" for name in names)], rows, range(len(names) + 1))
    if len(rows) > 12:
        shown = tag("details", tag("summary", plural(len(rows), "evaluation")), shown)
    return section("Evaluations", shown, note=note.strip())


def samples(run: Run) -> Html:
    """What the model said before and after."""
    if not run.samples:
        return Html()
    note = "The same prompts, answered before the first update and after the last."
    if len(run.samples) > _MOST_SAMPLES:
        note += f" The first {_MOST_SAMPLES} of {len(run.samples):,}."
    return section("Samples", *(_sample(item) for item in run.samples[:_MOST_SAMPLES]), note=note)


def _sample(item: Sample) -> Html:
    answers = [("before", "Before", item.before), ("after", "After", item.after)]
    if item.reference is not None:
        answers.append(("reference", "Reference", item.reference))
    boxes = [said(label, words, kind) for kind, label, words in answers]
    return tag("article", said("Prompt", item.prompt, "prompt"), tag("div", *boxes, class_="answers"), class_="sample")


def said(label: object, words: str | None, kind: str = "") -> Html:
    """A piece of text that someone said, in its own direction; empty and missing ones are named."""
    if words is None:
        body = tag("p", "not answered", class_="none")
    elif not words.strip():
        body = tag("p", "an empty answer", class_="none")
    else:
        more = len(words) - _MOST_CHARACTERS
        cut = f"\n… and {more:,} more characters" if more > 0 else ""
        body = tag("p", words[:_MOST_CHARACTERS] + cut, dir="auto")
    return tag("div", tag("h3", label), body, class_=f"said {kind}".strip())


def data(run: Run) -> Html:
    """What became of the rows."""
    if not run.data:
        return Html()
    head = ["", *(_SETS[key] for key in run.data)]
    reports = list(run.data.values())
    rows = [[label, *(cell(report) for report in reports)] for label, cell in DATA_ROWS]
    parts = [table(head, rows, range(1, len(head)))]
    reasons = [
        [f"{_SETS[key].lower()}: {what}", reason, number(count.count), share(count.count, report.counts.get("rows", 0)),
         ", ".join(count.examples) or NOTHING]
        for key, report in run.data.items()
        for what, reason, count in _reasons(report)
    ]  # fmt: skip
    if reasons:
        parts.append(table(["rows", "reason", "count", "share", "first places"], reasons, (2, 3), class_="reasons"))
    else:
        parts.append(tag("p", "No row was cut or left out."))
    return section("Data", *parts, note="Scored tokens are those that the loss is the mean over.")


def _reasons(report: DataReport) -> list[tuple[str, str, Count]]:
    found = [("left out", reason, count) for reason, count in report.dropped.items()]
    found += [("part left out", reason, count) for reason, count in report.dropped_records.items()]
    found += [("cut", reason, count) for reason, count in report.truncated.items()]
    found += [("noticed", reason, count) for reason, count in report.noticed.items()]
    if report.control_text.count:
        found.append(("kept", "control tokens in a content, kept as text", report.control_text))
    return found


def _count_of(name: str, report: DataReport) -> str:
    return number(report.counts.get(name))


def _scored(report: DataReport) -> str:
    scored, tokens = report.counts.get("scored_tokens"), report.counts.get("tokens")
    return f"{number(scored)} ({share(scored, tokens)})" if scored is not None and tokens else number(scored)


DATA_ROWS: list[tuple[str, Callable[[DataReport], object]]] = [
    ("format", lambda report: report.format or NOTHING),
    ("rows", lambda report: _count_of("rows", report)),
    ("used", lambda report: _count_of("used", report)),
    ("left out", lambda report: number(sum(count.count for count in report.dropped.values()))),
    ("cut", lambda report: number(sum(count.count for count in report.truncated.values()))),
    ("windows", lambda report: _count_of("windows", report)),
    ("tokens", lambda report: _count_of("tokens", report)),
    ("scored tokens", _scored),
    ("longest window, tokens", lambda report: _count_of("longest", report)),
    ("fill of windows", lambda report: NOTHING if report.fill is None else f"{100 * report.fill:.1f}%"),
    ("fingerprint", lambda report: tag("code", report.fingerprint) if report.fingerprint else NOTHING),
]


def configuration(run: Run) -> Html:
    """What differs from the defaults, then everything."""
    if not run.config:
        return Html()
    changed = changed_options(run)
    help_of = {item.name: str(item.metadata["help"]) for item in fields(run.options)}
    rows = []
    for name, (value, default) in changed.items():
        usual = "no option of this version" if default is ... else option_value(default)
        rows.append([tag("code", name), option_value(value), usual])
    every = []
    for name, value in run.config.items():
        mark = tag("span", " changed", class_="mark") if name in changed else ""
        every.append([tag("code", name), join([option_value(value), mark]), help_of.get(name, "")])
    differing = table(["option", "value", "default"], rows, class_="config")
    everything = table(["option", "value", "meaning"], every, class_="config")
    return section(
        "Configuration",
        differing if rows else tag("p", "All options are the defaults."),
        tag("details", tag("summary", f"All {len(every)} options"), everything),
        note=f"{plural(len(changed), 'option')} of {len(every)} {'differs' if len(changed) == 1 else 'differ'} "
        "from the defaults.",
    )


def history(run: Run) -> Html:
    """Starts, resumes and ends; checkpoints; versions and machines."""
    parts = []
    rows = []
    for session in sessions(run):
        begin, end = session.begin, session.end
        how = "no end: killed, or still running" if end is None else end.text("outcome") or NOTHING
        if end is not None and end.text("reason"):
            how += f": {end.text('reason')}"
        took = NOTHING if session.seconds is None else duration(session.seconds)
        reached = number(end.step) if end is not None else NOTHING
        rows.append([begin.name, moment(begin.time), number(begin.step), reached, took, how])
    if rows:
        head = ["session", "began", "from update", "to update", "took", "ended"]
        parts.append(table(head, rows, (2, 3, 4)))
    best = run.best.get("step")
    saved = {event.step: event.time for event in run.history if event.name == "save"}
    checkpoints = [
        [join([item.name, tag("span", " best", class_="mark") if item.step == best else ""]),
         moment(saved.get(item.step)), size(item.size)]
        for item in run.checkpoints
    ]  # fmt: skip
    if checkpoints:
        parts += [tag("h3", "Checkpoints on disk"), table(["checkpoint", "saved", "size"], checkpoints, (2,))]
    gone = len(saved.keys() - {item.step for item in run.checkpoints})
    if gone:
        parts.append(tag("p", f"{plural(gone, 'earlier checkpoint')} {'was' if gone == 1 else 'were'} deleted since."))
    environment = _environment(run)
    if environment:
        parts += [tag("h3", "Versions and machine"), environment]
    return section("History", *parts) if parts else Html()


def _environment(run: Run) -> Html:
    """A row a thing, a column a session; one column when all sessions were alike."""
    found = [session.begin.mapping("versions") | session.begin.mapping("machine") for session in sessions(run)]
    columns = [index for index, values in enumerate(found) if index == 0 or values != found[index - 1]]
    names = list(dict.fromkeys(name for values in found for name in values))
    if not names:
        return Html()
    head = ["", *(f"session {index + 1}" for index in columns)] if len(columns) > 1 else ["", "all sessions"]
    return table(head, [[name, *(found[index].get(name, NOTHING) for index in columns)] for name in names])
