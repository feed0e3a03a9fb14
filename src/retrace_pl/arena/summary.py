"""The ranking of an arena in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from retrace_pl.arena.measures import MEASURES
from retrace_pl.arena.ranking import Board, Entry
from retrace_pl.arena.words import board_title, write_interval, write_number, write_ranks
from retrace_pl.report.findings import fitting_table

_SHOWN = {
    "success": "success",
    "prior_success": "prior",
    "retrain_success": "retrain",
    "retain_acc": "retain",
    "forget_acc": "forget",
    "mia_auc": "MIA AUC",
}


def print_ranking(console: Console, boards: Sequence[Board]) -> None:
    """Prints every board: ranked methods, then those without a rank and why, then anchors.

    Args:
        console: where to.
        boards: the ranking.
    """
    for board in boards:
        console.print(board_title(board), style="italic", markup=False, soft_wrap=True)
        console.print(_table(board, console.width))
        for entry in board.of("gated"):
            console.print(f"  not ranked: {escape(entry.label)}: {escape('; '.join(entry.reasons))}", soft_wrap=True)
        console.print()


def _table(board: Board, width: int) -> Table:
    columns = ["rank", "method", "avoidable", f"{board.level:g} interval", "excess", *_SHOWN.values(), "done"]
    rows = [(_cells(entry), None if entry.state == "ranked" else "dim") for entry in board.entries]
    return fitting_table(columns, rows, width, kept=2)


def _cells(entry: Entry) -> list[str]:
    return [
        _place(entry),
        entry.label,
        write_number(MEASURES["avoidable"], entry.value("avoidable")),
        write_interval(MEASURES["avoidable"], entry, "avoidable"),
        write_number(MEASURES["excess"], entry.value("excess")),
        *(write_number(MEASURES[name], entry.value(name)) for name in _SHOWN),
        f"{entry.done}/{entry.done + entry.failed + entry.missing}",
    ]


def _place(entry: Entry) -> str:
    if entry.rank is None:
        return {"gated": "none", "failed": "failed", "anchor": "anchor"}[entry.state]
    ranks = write_ranks(entry)
    return str(entry.rank) if ranks in ("", str(entry.rank)) else f"{entry.rank} ({ranks})"
