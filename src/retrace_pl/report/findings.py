"""The last lines of a run on a terminal: arms side by side, leakage with intervals, the verdict, and where files are.

Wide terminals show every metric of the summary, narrow ones as many as fit; what is left out is in `metrics.json`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retrace_pl.report.glossary import LEAKAGE
from retrace_pl.report.significance import FURTHER_LEAKAGE

__all__ = [
    "fitting_table",
    "leakage_table",
    "output_console",
    "print_arms",
    "print_places",
    "print_verdict",
    "result_alone",
]

COLOURS = {"leak": "red", "no_evidence": "green", "invalid": "yellow"}
FILE_WIDTH = 120
"""Characters of a line where standard output is no terminal, unless COLUMNS says otherwise."""

_ARM, _GAP = "at distribution level", 2
"""Heading of the first column, and characters between two of them."""


def result_alone(as_json: bool) -> AbstractContextManager[object]:
    """While a command works: what anything else prints goes to standard error where the result is JSON.

    Args:
        as_json: whether standard output is for one JSON object.
    """
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def output_console() -> Console:
    """Standard output for results: as wide as the terminal, or wide enough for every column where it is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    return console


def print_arms(
    console: Console, values: Mapping[str, Any], columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Prints the attack beside its controls and rivals, all at one query budget.

    Args:
        console: where to.
        values: a run's metrics.
        columns: headings of the figures.
        rows: heading and figures of each arm.
    """
    budget = values["budget"]
    repeats = f"mean of {budget['repeats']} repeats" if budget["repeats"] > 1 else "1 repeat"
    console.print(f"{values['name']}", style="bold", markup=False)
    console.print(f"{budget['top_k']} candidates, {budget['queries']:,} queries each, {repeats}\n")
    styled = [([name, *figures], "bold" if name.lower() == "attack" else None) for name, figures in rows]
    console.print(fitting_table([_ARM, *columns], styled, console.width))


def fitting_table(
    columns: Sequence[str], rows: Sequence[tuple[Sequence[str], str | None]], width: int, *, kept: int = 1
) -> Table:
    """A table without wrapped cells, with as many columns from the left as there is room for.

    Args:
        columns: headings.
        rows: cells, which may be fewer than headings, and style of each row.
        width: characters that there are.
        kept: columns that name the row: they are there in any case, with one more, and stand to the left.
    """
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    used, shown = -_GAP, 0
    for position, heading in enumerate(columns):
        cells = (found[position] for found, _ in rows if position < len(found))
        used += _GAP + max(map(len, (heading, *cells)))
        if shown > kept and used > width:
            break
        justify: Literal["left", "right"] = "left" if position < kept else "right"
        table.add_column(escape(heading), justify=justify, no_wrap=True, overflow="ellipsis")
        shown += 1
    for found, style in rows:
        table.add_row(*map(escape, found[:shown]), style=style)
    return table


def leakage_table(values: Mapping[str, Any]) -> Table | None:
    """Every kind of leakage that was measured, with its interval; None where there is none.

    Args:
        values: a run's metrics.
    """
    measured = {name: row for name, row in values.get("leakage", {}).items() if row is not None}
    if not measured:
        return None
    level = next(iter(measured.values()))["level"]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading, justify in (("leakage", "left"), ("value", "right"), (f"{level:.0%} interval", "left"), ("", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, row in measured.items():
        title = (LEAKAGE | FURTHER_LEAKAGE).get(name, (name, ""))[0]
        reading = "above zero" if row["low"] > 0 else "below zero" if row["high"] < 0 else "includes zero"
        table.add_row(title, f"{row['value']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}", reading)
    return table


def print_verdict(console: Console, values: Mapping[str, Any]) -> None:
    """The verdict and its reason, in a line that can be searched for."""
    colour = COLOURS.get(values["verdict"], "white")
    reason = escape(values["verdict_reason"])
    console.print(f"verdict: [bold {colour}]{values['verdict']}[/bold {colour}] - {reason}", soft_wrap=True)


def print_places(console: Console, folder: Path) -> None:
    """Where to look further: metrics, report and TensorBoard, as far as they are there."""
    for name in ("metrics.json", "report.html"):
        path = folder / name
        if path.is_file():
            console.print(f"{path.stem}: {path.resolve()}", soft_wrap=True, markup=False)
    logs = folder / "tensorboard"
    if logs.is_dir():
        shown = shlex.quote(str(logs.resolve()))
        console.print(f"tensorboard: tensorboard --logdir {shown}", soft_wrap=True, markup=False)
