"""The last lines a user sees: the verdict, the figures with their controls, and where the report is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retrace_pl.files import read_json
from retrace_pl.metrics import glossary_of
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.report.glossary import attack_title
from retrace_pl.report.other_attacks import finding_sentences

COLOURS = {"leak": "red", "no_evidence": "green", "invalid": "yellow"}


def print_summary(run: AuditRun, stages: tuple[str, ...]) -> None:
    """Prints the result of the last stage on standard output."""
    console = Console()
    metrics = run.folder.path("metrics.json")
    if stages[-1] not in ("evaluate", "report") or not metrics.is_file():
        console.print(f"finished {', '.join(stages)}; files are in {escape(str(run.folder.root))}", soft_wrap=True)
        return
    values = read_json(metrics)
    console.print(_table(values))
    for sentence in _sentences(values):
        console.print(escape(sentence), soft_wrap=True, highlight=False)
    colour = COLOURS.get(values["verdict"], "white")
    console.print(
        f"verdict: [bold {colour}]{values['verdict']}[/bold {colour}] - {escape(values['verdict_reason'])}",
        soft_wrap=True,
    )
    console.print(f"metrics: {escape(str(metrics))}", soft_wrap=True)
    page = run.folder.path("report.html")
    if page.is_file():
        console.print(f"report: {escape(str(page.resolve()))}", soft_wrap=True)


def _table(values: dict[str, Any]) -> Table:
    budget = values["budget"]
    title = f"{budget['top_k']} candidates, {budget['queries']} queries each, mean of {budget['repeats']} repeats"
    shown = glossary_of(values).summary
    table = Table("distribution level", *shown, title=title, title_justify="left")
    rows = [("attack", values["attack"]), *values["controls"].items(), *values["rivals"].items()]
    for name, baseline in values["baselines"].items():
        rows += [(attack_title(name), baseline), *((f"  {key}", row) for key, row in baseline["controls"].items())]
    for name, row in rows:
        if row.get("applicable", True):
            figures = row["distribution"]
            table.add_row(escape(name), *(_number(figures.get(metric)) for metric in shown))
    return table


def _sentences(values: dict[str, Any]) -> Iterator[str]:
    """What the inferences say, and why an attack does not apply."""
    for name, row in {**values["rivals"], **values["baselines"]}.items():
        if not row.get("applicable", True):
            yield f"{attack_title(name)} does not apply: {row['reason']}"
    for name, inference in values["inferences"].items():
        yield " ".join(finding_sentences(name, inference, values["classes"]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
