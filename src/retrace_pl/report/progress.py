"""What a terminal shows of long work: a bar for the stage, one for the step it is at, and the time left of both.

Where standard error is no terminal (a file, a pipe, a batch job) there are plain lines instead, at most one every half
minute. Everything goes to standard error, so that `--json` leaves one object on standard output.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from retrace_pl.envs import CandidatePool

__all__ = ["Bar", "RichSearchProgress", "StageProgress", "counted", "duration", "steps", "terminal"]

Item = TypeVar("Item")

LINE_SECONDS = 30.0
"""Seconds between two lines about one piece of work where there is no terminal."""

WIDE = 90
"""Characters from which a terminal has room for notes and elapsed time beside the bar."""


def terminal(quiet: bool = False) -> Console:
    """Standard error as every command uses it: colours where they are wanted, and no line broken in a file.

    Args:
        quiet: print nothing.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def duration(seconds: float) -> str:
    """Seconds as `m:ss`, or `h:mm:ss` from an hour on.

    Example:
        >>> duration(75.4), duration(3700)
        ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _TimeLeft(ProgressColumn):
    """Time left at the speed so far, of the whole piece of work."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = _left(task.elapsed or 0.0, task.completed, task.total)
        return Text("" if left is None else f"{duration(left)} left", style="progress.remaining")


class _Elapsed(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        return Text(duration(task.elapsed or 0.0), style="progress.elapsed")


def _left(elapsed: float, completed: float, total: float | None) -> float | None:
    if not total or completed <= 0 or elapsed < 1:
        return None
    return max(0.0, elapsed * (total - completed) / completed)


def _display(console: Console) -> Progress:
    wide = console.width >= WIDE
    words = TextColumn(
        "{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", min_width=18, ratio=1)
    )
    count = TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True, justify="right"))
    note = TextColumn(
        "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", min_width=24)
    )
    bar, left = BarColumn(bar_width=24 if wide else 10), _TimeLeft(table_column=Column(no_wrap=True))
    columns = [words, bar, count, *([note, _Elapsed(table_column=Column(no_wrap=True))] if wide else []), left]
    return Progress(*columns, console=console, transient=True, expand=not wide)


def _is_live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


_STAGE: ContextVar[StageProgress | None] = ContextVar("stage", default=None)
"""The stage that runs, whose display the bars of its steps join: a terminal can redraw one display at a time."""


class StageProgress:
    """The display of one stage: its own bar, counted in steps, and below it the bar of the step that runs.

    Args:
        name: what is shown beside the bar, such as `attack`.
        console: where to draw.
        total: steps, where they are known beforehand; :func:`steps` adds its own.
    """

    def __init__(self, name: str, console: Console, total: int = 0) -> None:
        self.name = name
        self.console = console
        self.total = total
        self.done = 0
        self.display = _display(console) if _is_live(console) else None
        self._token: Token[StageProgress | None] | None = None
        self._started = 0.0

    def __enter__(self) -> StageProgress:
        self._token = _STAGE.set(self)
        self._started = time.monotonic()
        if self.display is not None:
            self._task = self.display.add_task(f"[bold]{self.name}[/bold]", total=None, count="", note="")
            self.display.start()
            self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _STAGE.reset(self._token)
            self._token = None
        if self.display is not None:
            self.display.stop()

    def expect(self, count: int) -> None:
        """There are so many more steps."""
        self.total += count
        self.show()

    def advance(self) -> None:
        """A step is over."""
        self.done += 1
        self.show()

    def show(self, part: float = 0.0) -> None:
        """Draws the stage's bar.

        Args:
            part: share of the running step that is over, in [0, 1].
        """
        if self.display is None or not (self.total or part):
            return
        total, count = self.total or 1, f"{self.done}/{self.total}" if self.total else ""  # unknown: one piece of work
        self.display.update(self._task, completed=min(self.done + part, total), total=total, count=count)


def counted(count: int) -> Callable[[], None]:
    """Announces further steps of the stage that runs, and returns what counts one of them; nothing without a stage."""
    stage = _STAGE.get()
    if stage is None:
        return lambda: None
    stage.expect(count)
    return stage.advance


def steps(items: Sequence[Item]) -> Iterator[Item]:
    """The items, each of which is a step of the stage that runs."""
    advance = counted(len(items))
    for item in items:
        yield item
        advance()


class Bar:
    """One piece of work: a bar in the display of the stage that runs, or in one of its own.

    Args:
        description: what is being done.
        total: its amount.
        console: where to draw where no stage is running; standard error by default.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        description: str,
        total: float,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description = description
        self.total = total
        self._stage = _STAGE.get() if console is None or _same(_STAGE.get(), console) else None
        self._console = self._stage.console if self._stage is not None else console or terminal()
        self._clock = clock
        self._started = self._said = clock()
        self._display: Progress | None = self._stage.display if self._stage is not None else None
        if self._stage is None and _is_live(self._console):
            self._display = _display(self._console)
            self._display.start()
        if self._display is not None:
            shown = description.replace("[", r"\[")
            indent = "  " if self._stage is not None else ""
            self._task = self._display.add_task(indent + shown, total=total, count="", note="")

    def update(self, completed: float, count: str, note: str = "") -> None:
        """Moves the bar.

        Args:
            completed: what is done, of `total`.
            count: the same in words, such as `1,024/4,096`.
            note: what else is worth a look, such as the best score.
        """
        if self._display is not None:
            self._display.update(self._task, completed=completed, count=count, note=note)
            if self._stage is not None:
                self._stage.show(min(1.0, completed / self.total) if self.total else 0.0)
        elif self._clock() - self._said >= LINE_SECONDS:
            self._said = self._clock()
            left = _left(self._said - self._started, completed, self.total)
            parts = [f"{self.description}: {count}", note, "" if left is None else f"{duration(left)} left"]
            self._console.print(", ".join(part for part in parts if part), markup=False)

    def close(self) -> None:
        """Takes the bar down; safe to call twice."""
        if self._display is None:
            return
        self._display.refresh()  # what came after the last redraw
        if self._stage is not None:
            self._display.remove_task(self._task)
        else:
            self._display.stop()
        self._display = None


def _same(stage: StageProgress | None, console: Console) -> bool:
    return stage is not None and stage.console is console


class RichSearchProgress:
    """Shows how far a search is: queries done, best score, mean of the best, time left; it changes nothing.

    Args:
        description: What is being searched, e.g. ``"attack, repeat 1"``.
        quiet: Show nothing.
        console: Where to draw; standard error by default.
    """

    def __init__(self, description: str = "search", quiet: bool = False, console: Console | None = None) -> None:
        self.description = description
        self.quiet = quiet
        self.console = console
        self._bar: Bar | None = None
        self._budget = 0

    def on_start(self, budget: int) -> None:
        """Draws the bar for a budget of queries."""
        self.on_end()
        if not self.quiet:
            self._budget = budget
            self._bar = Bar(self.description, budget, self.console)

    def on_update(self, queries: int, pool: CandidatePool, scalars: dict[str, float]) -> None:
        """Moves the bar to the number of queries and prints the best score and the mean of the best 64."""
        if self._bar is None:
            return
        best, top = scalars.get("score/best"), scalars.get("score/top64")
        if best is None or top is None:
            values = pool.scores.topk(min(64, len(pool.scores))).values
            best, top = (float(values[0]), float(values.mean())) if len(values) else (None, None)
        note = "" if best is None or top is None else f"best {best:.3f}, top-64 {top:.3f}"
        self._bar.update(queries, f"{queries:,}/{self._budget:,}", note)

    def on_end(self) -> None:
        """Takes the bar down, also after an error; safe to call twice."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
