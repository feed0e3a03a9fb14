"""The last lines of an attack on two models: what was found beside its controls, and where the report is."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retrace_pl.external.run import PairRun
from retrace_pl.files import read_json
from retrace_pl.report.gaps import seen_as
from retrace_pl.report.glossary import arm_title

__all__ = ["print_pair_summary"]

SHOWN = ("sr_oracle", "sr_mse", "mse", "diversity")


def print_pair_summary(run: PairRun) -> None:
    """Prints the result on standard output."""
    console = Console()
    metrics = read_json(run.folder.path("metrics.json"))
    console.print(_table(metrics))
    console.print(f"verdict: [bold]{metrics['verdict']}[/bold] - {escape(metrics['verdict_reason'])}", soft_wrap=True)
    for name in ("metrics.json", "report.html"):
        console.print(f"{name.partition('.')[0]}: {escape(str(run.folder.path(name).resolve()))}", soft_wrap=True)


def _table(metrics: dict[str, Any]) -> Table:
    budget = metrics["budget"]
    shown = [name for name in SHOWN if metrics["attack"]["distribution"].get(name) is not None]
    title = f"{budget['top_k']} candidates, {budget['queries']} queries each, mean of {budget['repeats']} repeats"
    table = Table("arm", "gap", *shown, "seen as", title=title, title_justify="left")
    rows = {"attack": metrics["attack"], **metrics["controls"], **metrics["rivals"]}
    for name, row in rows.items():
        if not row.get("applicable", True):
            table.add_row(escape(arm_title(name)), "does not apply")
            continue
        gap = metrics["gaps"].get(name) or metrics["gaps"][f"rival.{name}"]
        figures = [_number(row["distribution"].get(metric)) for metric in shown]
        table.add_row(
            escape(arm_title(name)), _number(gap["gap"]), *figures, escape(seen_as(gap["labels"], metrics["classes"]))
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
