"""Which methods no other beats in two quantities at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrace_pl.arena.ranking import Board, Entry

PAIRS = (("utility_gap", "excess"), ("forgetting_gap", "excess"), ("cost", "avoidable"))
"""(horizontal, vertical) measures of each Pareto plot; of all of them less is better."""


@dataclass(frozen=True)
class Tradeoff:
    """Two measures of a board against each other.

    Args:
        x: horizontal measure; `seconds` in place of `cost` where retraining is not among the methods.
        y: vertical measure.
        points: entries that have both.
        front: those of the ranked ones that no other ranked one beats in one without losing in the other, by x.
    """

    x: str
    y: str
    points: tuple[Entry, ...]
    front: tuple[Entry, ...]


def tradeoffs(board: Board) -> list[Tradeoff]:
    """The trade-offs of a board; those of which no entry has both measures are left out."""
    found = []
    for x, y in PAIRS:
        if x == "cost" and not any(entry.value("cost") is not None for entry in board.entries):
            x = "seconds"
        points = tuple(entry for entry in board.entries if entry.value(x) is not None and entry.value(y) is not None)
        if points:
            found.append(Tradeoff(x, y, points, front([entry for entry in points if entry.rank is not None], x, y)))
    return found


def front(entries: Sequence[Entry], x: str, y: str) -> tuple[Entry, ...]:
    """Entries that no other dominates (at most as much in both measures, less in one), by x.

    Args:
        entries: entries that have both measures.
        x: a measure, less is better.
        y: another.
    """
    places = [(entry.value(x) or 0.0, entry.value(y) or 0.0) for entry in entries]
    kept = [
        (place, entry)
        for place, entry in zip(places, entries, strict=True)
        if not any(other != place and other[0] <= place[0] and other[1] <= place[1] for other in places)
    ]
    return tuple(entry for _, entry in sorted(kept, key=lambda item: item[0]))


def pareto_section(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """Every trade-off as plain values."""
    return [
        {
            "access": board.access,
            "attack": board.attack,
            "x": trade.x,
            "y": trade.y,
            "points": [
                {**_name(entry), "state": entry.state, "x": entry.value(trade.x), "y": entry.value(trade.y)}
                for entry in trade.points
            ],
            "front": [_name(entry) for entry in trade.front],
        }
        for board in boards
        for trade in tradeoffs(board)
    ]


def _name(entry: Entry) -> dict[str, Any]:
    return {"method": entry.method, "strength": entry.strength}
