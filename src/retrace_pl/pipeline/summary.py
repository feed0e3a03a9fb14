"""The last lines a user sees: the figures with their controls, leakage, the verdict, and where the report is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retrace_pl.files import read_json
from retrace_pl.metrics import glossary_of
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.report.findings import leakage_table, output_console, print_arms, print_places, print_verdict
from retrace_pl.report.glossary import attack_title
from retrace_pl.report.other_attacks import finding_sentences


def print_summary(run: AuditRun, stages: tuple[str, ...]) -> None:
    """Prints the result of the last stage on standard output."""
    console = output_console()
    metrics = run.folder.path("metrics.json")
    if stages[-1] not in ("evaluate", "report") or not metrics.is_file():
        text = f"finished {', '.join(stages)}; files are in {run.folder.root}"
        console.print(text, soft_wrap=True, markup=False)
        return
    values = read_json(metrics)
    shown = glossary_of(values).summary
    rows = [(name, [_number(figures.get(metric)) for metric in shown]) for name, figures in _arms(values)]
    print_arms(console, values, shown, rows)
    leakage = leakage_table(values)
    if leakage is not None:
        console.print()
        console.print(leakage)
        console.print()
    for sentence in _sentences(values):
        console.print(sentence, soft_wrap=True, markup=False)
    print_verdict(console, values)
    print_places(console, run.folder.root)


def _arms(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Heading and figures of every arm that ran."""
    rows = [("attack", values["attack"]), *values["controls"].items(), *values["rivals"].items()]
    for name, baseline in values["baselines"].items():
        rows += [(attack_title(name), baseline), *((f"  {key}", row) for key, row in baseline["controls"].items())]
    for name, row in rows:
        if row.get("applicable", True):
            yield name, row["distribution"]


def _sentences(values: dict[str, Any]) -> Iterator[str]:
    """What the inferences say, and why an attack does not apply."""
    for name, row in {**values["rivals"], **values["baselines"]}.items():
        if not row.get("applicable", True):
            yield f"{attack_title(name)} does not apply: {row['reason']}"
    for name, inference in values["inferences"].items():
        yield " ".join(finding_sentences(name, inference, values["classes"]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
