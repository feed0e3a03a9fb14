"""A progress bar for a search: queries done, best score, mean of the best, time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from retrace_pl.envs import CandidatePool

__all__ = ["RichSearchProgress"]


class RichSearchProgress:
    """Shows how far a search is on the terminal; watches and changes nothing.

    Args:
        description: What is being searched, e.g. ``"attack, repeat 1"``.
        quiet: Show nothing.
        console: Where to draw; standard error by default, so that ``--json`` output stays clean.
    """

    def __init__(self, description: str = "search", quiet: bool = False, console: Console | None = None) -> None:
        self.description = description
        self.quiet = quiet
        self.console = console
        self._progress: Progress | None = None

    def on_start(self, budget: int) -> None:
        """Draws the bar for a budget of queries."""
        self.on_end()
        if self.quiet:
            return
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("best {task.fields[best]}  top-64 {task.fields[top]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console or Console(stderr=True),
        )
        self._progress.add_task(self.description, total=budget, best="-", top="-")
        self._progress.start()

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Moves the bar to the number of queries and prints the best score and the mean of the best 64."""
        if self._progress is None:
            return
        best, top = scalars.get("score/best"), scalars.get("score/top64")
        if best is None or top is None:
            values = pool.scores.topk(min(64, len(pool.scores))).values
            best, top = (float(values[0]), float(values.mean())) if len(values) else (None, None)
        shown = ["-" if value is None else f"{value:.3f}" for value in (best, top)]
        self._progress.update(self._progress.task_ids[0], completed=queries, best=shown[0], top=shown[1])

    def on_end(self) -> None:
        """Takes the bar down, also after an error; safe to call twice."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
