"""What a terminal shows of an arena: a bar while it runs, a table when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from retrace_pl.arena.cells import Cell
from retrace_pl.arena.record import CellRecord

SHOWN_CELLS = 2
"""Cells named beside the bar; the others are counted."""


class ArenaProgress:
    """A bar on standard error: cells done, cells failed, time left, the cells that run now.

    Args:
        total: cells of the arena.
        done: those that an earlier run finished.
        quiet: show nothing.
    """

    def __init__(self, total: int, done: int, quiet: bool) -> None:
        self.failed = 0
        self.running: list[str] = []
        self._bar = Progress(
            TextColumn("cells"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[running]}", markup=False),
            console=Console(stderr=True),
            disable=quiet,
        )
        self._task = self._bar.add_task("cells", total=total, completed=done, failed=0, running="")

    def __enter__(self) -> ArenaProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def started(self, cell: Cell) -> None:
        """A cell was handed to a process."""
        if cell.id not in self.running:
            self.running.append(cell.id)
        self._show()

    def finished(self, record: CellRecord) -> None:
        """A cell has its record; why a failed one failed is printed above the bar."""
        if record.id in self.running:
            self.running.remove(record.id)
        if not record.done:
            self.failed += 1
            if not self._bar.disable:
                self._bar.print(f"[red]failed[/red] {escape(record.id)}: {escape(record.error or '')}", soft_wrap=True)
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        more = len(self.running) - SHOWN_CELLS
        shown = ", ".join(self.running[:SHOWN_CELLS]) + (f" and {more} more" if more > 0 else "")
        self._bar.update(self._task, failed=self.failed, running=shown)


def summary_table(records: Sequence[CellRecord]) -> Table:
    """One row for every method, strength, access level and attack: means over seeds and forget classes.

    Args:
        records: the cells.
    """
    axes = [axis for axis in ("access", "attack") if len({getattr(record, axis) for record in records}) > 1]
    table = Table("method", *axes, title="means over cells", title_justify="left", box=None)
    for name in ("done", "retain", "forget", "MIA AUC", "success", "prior", "retrained", "excess"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, float, str, str], list[CellRecord]] = {}
    for record in records:
        groups.setdefault((record.method, record.strength, record.access, record.attack), []).append(record)
    for (method, strength, access, attack), cells in groups.items():
        done = [cell for cell in cells if cell.done]
        title = method if strength == 1 else f"{method} x{strength:g}"
        table.add_row(
            escape(title),
            *(escape(value) for axis, value in (("access", access), ("attack", attack)) if axis in axes),
            f"{len(done)}/{len(cells)}",
            *(_mean([(cell.unlearning or {}).get(name) for cell in done]) for name in QUALITY_SHOWN),
            *(_mean([(arm or {}).get("sr_oracle") for arm in arms]) for arms in _arms(done)),
            _mean([((cell.leakage or {}).get("excess") or {}).get("value") for cell in done]),
        )
    return table


QUALITY_SHOWN = ("retain_acc", "forget_acc", "mia_auc")


def _arms(cells: Sequence[CellRecord]) -> list[list[dict[str, Any] | None]]:
    """The attack and its two controls, each over the cells."""
    return [
        [cell.attack_result for cell in cells],
        [cell.prior for cell in cells],
        [cell.matched_retrain for cell in cells],
    ]


def _mean(values: Sequence[Any]) -> str:
    numbers = [float(value) for value in values if value is not None]
    return f"{mean(numbers):.3f}" if numbers else "-"
