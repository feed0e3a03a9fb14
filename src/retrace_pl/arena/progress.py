"""What a terminal shows of an arena while it runs."""

from __future__ import annotations

from rich.markup import escape

from retrace_pl.arena.cells import Cell
from retrace_pl.arena.record import CellRecord
from retrace_pl.report.progress import Bar, terminal

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
        self.total = total
        self.done = done
        self.before = done
        self.failed = 0
        self.running: list[str] = []
        self.console = terminal(quiet)
        self._bar: Bar | None = None

    def __enter__(self) -> ArenaProgress:
        self._bar = Bar("cells", self.total - self.before, self.console)
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def started(self, cell: Cell) -> None:
        """A cell was handed to a process."""
        if cell.id not in self.running:
            self.running.append(cell.id)
        self._show()

    def finished(self, record: CellRecord) -> None:
        """A cell has its record; why a failed one failed is printed above the bar."""
        if record.id in self.running:
            self.running.remove(record.id)
        self.done += 1
        if not record.done:
            self.failed += 1
            self.console.print(f"[red]failed[/red] {escape(record.id)}: {escape(record.error or '')}", soft_wrap=True)
        self._show()

    def _show(self) -> None:
        if self._bar is None:
            return
        more = len(self.running) - SHOWN_CELLS
        shown = ", ".join(self.running[:SHOWN_CELLS]) + (f" and {more} more" if more > 0 else "")
        note = "; ".join(part for part in (f"{self.failed} failed" if self.failed else "", shown) if part)
        self._bar.update(self.done - self.before, f"{self.done}/{self.total}", note)
