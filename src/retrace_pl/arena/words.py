"""How an arena writes its figures, the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

from retrace_pl.arena.measures import Measure
from retrace_pl.arena.ranking import EVERY_ACCESS, Board, Entry
from retrace_pl.report.glossary import format_value

ABSENT = "–"  # noqa: RUF001 - a dash, not a minus


def write_number(measure: Measure, value: float | None) -> str:
    """A figure for people; a dash where there is none.

    Args:
        measure: which figure.
        value: the figure.
    """
    if value is None:
        return ABSENT
    if measure.signed:
        return f"{value:+.3f}".replace("-", "\u2212")
    if measure.fixed:
        return f"{value:.3f}"
    return format_value(value, measure.percent).replace("-", "\u2212")


def write_interval(measure: Measure, entry: Entry, name: str) -> str:
    """The interval of a figure in words, or empty.

    Args:
        measure: which figure.
        entry: whose.
        name: name of the measure.
    """
    found = entry.measures[name]
    if found.low is None or found.high is None:
        return ""
    return f"{write_number(measure, found.low)} to {write_number(measure, found.high)}"


def write_ranks(entry: Entry) -> str:
    """The ranks that the intervals allow, for example `2-5`, or empty."""
    if entry.rank_range is None:
        return ""
    best, worst = entry.rank_range
    return str(best) if best == worst else f"{best}\u2013{worst}"


def write_cells(entry: Entry) -> str:
    """How many of its cells finished, for example `2 of 3`, and what became of the others."""
    total = entry.done + entry.failed + entry.missing
    parts = [f"{count} {word}" for count, word in ((entry.failed, "failed"), (entry.missing, "not run")) if count]
    return f"{entry.done} of {total}" + (f" ({', '.join(parts)})" if parts else "")


def board_title(board: Board, several_attacks: bool = True) -> str:
    """Heading of a board.

    Args:
        board: the board.
        several_attacks: whether the attack has to be told.
    """
    access = "All access levels" if board.access == EVERY_ACCESS else f"{board.access.capitalize()}-box access"
    return f"{access}, attack {board.attack}" if several_attacks else access
