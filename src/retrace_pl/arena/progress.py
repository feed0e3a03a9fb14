"""What a terminal shows of an arena while it runs."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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
