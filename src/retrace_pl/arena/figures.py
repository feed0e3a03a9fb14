"""From the boards of an arena to the figures of its page, each with an alternative text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from retrace_pl.arena.measures import MEASURES, Measure
from retrace_pl.arena.pareto import Tradeoff, tradeoffs
from retrace_pl.arena.plots import Series, edge_of, forest_figure, pareto_figure
from retrace_pl.arena.ranking import EVERY_ACCESS, Board, Entry
from retrace_pl.arena.words import write_number
from retrace_pl.report.media import FigurePair, draw

_SIGNED = Measure("", "", lambda _: None, signed=True)
_COLOURS = {"avoidable": ("matched_retrain", "o"), "excess": ("attack", "D")}
_ACCESS = {"black": ("identity", "s"), "gray": ("holdout", "D"), "white": ("prior", "o")}
_AXES = {
    "utility_gap": "utility gap (retained accuracy lost against retraining)",
    "forgetting_gap": "forgetting gap (distance to the retrained forget accuracy)",
    "cost": "cost (share of the time of retraining)",
    "seconds": "seconds of unlearning",
    "excess": "excess leakage",
    "avoidable": "avoidable leakage",
}
_LOG_FROM = 20.0


def leakage_picture(board: Board) -> FigurePair | None:
    """Avoidable and excess leakage of every method of a board; None where nothing has figures."""
    rows = board.of("ranked", "gated", "anchor")
    if not rows:
        return None
    series = [
        Series(MEASURES[name].title, colour, marker, tuple(_ends(entry, name) for entry in rows))
        for name, (colour, marker) in _COLOURS.items()
    ]
    told = "; ".join(
        f"{entry.label} {write_number(_SIGNED, entry.value('avoidable'))} and "
        f"{write_number(_SIGNED, entry.value('excess'))}"
        for entry in rows
    )
    return draw(
        partial(forest_figure, rows, series, label="leakage (avoidable, 0: as much as a retrained model)"),
        f"Avoidable and excess leakage with intervals, in the order of the table: {told}.",
        "Avoidable leakage decides the rank; excess leakage beside it. Grey: shown, not ranked. "
        "Below the dashed lines: methods without a rank, then anchors.",
    )


def access_picture(board: Board, boards: Sequence[Board]) -> FigurePair | None:
    """Avoidable leakage by access level, in the order of the board over all of them.

    Args:
        board: the board over all access levels.
        boards: every board of the arena.
    """
    rows = board.of("ranked", "gated", "anchor")
    single = [one for one in boards if one.attack == board.attack and one.access != EVERY_ACCESS]
    if not rows:
        return None
    series = []
    for one in single:
        found = {entry.label: entry for entry in one.entries}
        colour, marker = _ACCESS.get(one.access, ("random", "^"))
        ends = tuple(
            _ends(found[entry.label], "avoidable") if entry.label in found else (None, None, None) for entry in rows
        )
        series.append(Series(f"{one.access}-box", colour, marker, ends))
    told = "; ".join(
        f"{entry.label} " + ", ".join(f"{one.title} {write_number(_SIGNED, one.values[row][0])}" for one in series)
        for row, entry in enumerate(rows)
    )
    return draw(
        partial(forest_figure, rows, series, label="avoidable leakage (0: as much as a retrained model)"),
        f"Avoidable leakage by access level: {told}.",
        "Avoidable leakage by access level, in the order of the table.",
    )


def pareto_pictures(board: Board) -> list[FigurePair]:
    """The trade-offs of a board."""
    return [_pareto_picture(trade) for trade in tradeoffs(board)]


def _pareto_picture(trade: Tradeoff) -> FigurePair:
    spent = [entry.value(trade.x) or 0.0 for entry in trade.points]
    positive = [value for value in spent if value > 0]
    log = trade.x in ("cost", "seconds") and bool(positive) and max(positive) > _LOG_FROM * min(positive)
    front = ", ".join(entry.label for entry in trade.front) or "no ranked method"
    edge = None if log else edge_of(trade)
    beyond = [
        f"{entry.label} ({entry.value(trade.x):.2f})"
        for entry in trade.points
        if edge is not None and (entry.value(trade.x) or 0.0) > edge
    ]
    further = f" On the dashed line, in truth further out: {', '.join(beyond)}." if beyond else ""
    title = f"{MEASURES[trade.y].title} against {_AXES[trade.x].partition(' (')[0]}"
    return draw(
        partial(pareto_figure, trade, labels=(_AXES[trade.x], _AXES[trade.y]), log=log),
        f"{title} for {len(trade.points)} methods; on the Pareto front: {front}.{further}",
        f"{title}: less is better in both. On the front: {front}. Numbers are those of the table.{further}",
    )


def _ends(entry: Entry, name: str) -> tuple[float | None, float | None, float | None]:
    found = entry.measures[name]
    return found.value, found.low, found.high
