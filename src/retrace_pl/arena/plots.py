"""Figures of an arena: intervals of every method, and what it pays for leaking less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from retrace_pl.arena.labels import FONT, name_points, plain_name
from retrace_pl.arena.measures import RETRAIN
from retrace_pl.arena.pareto import Tradeoff
from retrace_pl.arena.ranking import Entry
from retrace_pl.report.palette import Theme

_BEYOND, _NARROWEST = 0.6, 0.01
"""How far the axis reaches beyond the ranked methods, as a share of their spread, and the least spread."""


@dataclass(frozen=True)
class Series:
    """One mark in every row of a forest figure.

    Args:
        title: name in the legend.
        colour: arm of the theme whose colour it takes.
        marker: matplotlib's marker.
        values: (mean, low, high) for each row; no mean: no mark, no ends: no interval.
    """

    title: str
    colour: str
    marker: str
    values: tuple[tuple[float | None, float | None, float | None], ...]


def forest_figure(entries: Sequence[Entry], series: Sequence[Series], theme: Theme, label: str) -> Figure:
    """Means with intervals, one row for each method, in the order of the table; grey: without a rank.

    Args:
        entries: the rows, from the top.
        series: the marks of a row.
        theme: colours.
        label: text of the horizontal axis.
    """
    figure, axes = _figure(theme, 5.6, 1.2 + 0.115 * len(entries) * (1 + len(series)))
    for row, entry in enumerate(entries):
        for place, one in enumerate(series):
            mean, low, high = one.values[row]
            if mean is None:
                continue
            height = row + (place - (len(series) - 1) / 2) * 0.3
            colour = theme.arm(one.colour) if entry.state != "gated" else theme.muted
            if low is not None and high is not None:
                axes.plot([low, high], [height, height], color=colour, lw=2, solid_capstyle="butt")
            full = entry.state != "gated"
            axes.plot(mean, height, one.marker, ms=5, color=colour, mfc=colour if full else theme.paper, mew=1.2)
        if all(one.values[row][0] is None for one in series):
            axes.text(
                0.02,
                row,
                "not measured",
                color=theme.muted,
                size=FONT,
                va="center",
                transform=axes.get_yaxis_transform(),
            )
    axes.axvline(0, color=theme.ink, lw=1)
    states = [entry.state for entry in entries]
    for row in range(1, len(states)):
        if states[row] != states[row - 1]:
            axes.axhline(row - 0.5, color=theme.muted, lw=0.8, ls=(0, (4, 3)))
    names = [
        plain_name(entry.label) if entry.number is None else f"{plain_name(entry.label)}  {entry.number}"
        for entry in entries
    ]
    axes.set_yticks(range(len(entries)), names, parse_math=False)
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=theme.grid, lw=0.8)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=FONT)
    for tick, entry in zip(axes.get_yticklabels(), entries, strict=True):
        tick.set_color(theme.muted if entry.state == "gated" else theme.ink)
    axes.spines["left"].set_visible(False)
    marks = [
        Line2D([], [], color=theme.arm(one.colour), marker=one.marker, ms=5, lw=2, label=one.title) for one in series
    ]
    _legend(figure, theme, marks, columns=2)
    return figure


def pareto_figure(trade: Tradeoff, theme: Theme, labels: tuple[str, str], *, log: bool = False) -> Figure:
    """Every method in two measures of which less is better, with the front of the ranked ones.

    Points beyond `edge_of` are drawn on a dashed line at the right. Methods of the front and anchors carry their name,
    the others their number in the table where there is room.

    Args:
        trade: the points.
        theme: colours.
        labels: texts of the axes.
        log: whether the horizontal axis is logarithmic; points at 0 or below are then drawn at its left end.
    """
    figure, axes = _figure(theme, 5.6, 4.4)
    edge = None if log else edge_of(trade)
    places = _places(trade, log, edge)
    if log:
        axes.set_xscale("log")
    _strength_lines(axes, trade, places, theme)
    for entry, (x, y) in zip(trade.points, places, strict=True):
        _error_bars(axes, entry, trade, (x, y), theme, log)
    corner = [places[trade.points.index(entry)] for entry in trade.front]
    colour = theme.arm("attack")
    axes.step([x for x, _ in corner], [y for _, y in corner], where="post", color=colour, lw=1.6, zorder=3)
    for entry, place in zip(trade.points, places, strict=True):
        _mark(axes, entry, place, entry in trade.front, theme)
    axes.margins(0.09)
    if edge is not None:
        axes.axvline(edge, color=theme.muted, lw=0.8, ls=(0, (4, 3)), zorder=0)
        axes.set_xlim(right=edge + 0.03 * (edge - axes.get_xlim()[0]))
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(color=theme.grid, lw=0.8)
    _legend(figure, theme, _pareto_marks(trade, theme), columns=3)
    name_points(figure, axes, trade, places, theme)
    return figure


def edge_of(trade: Tradeoff) -> float | None:
    """Where the horizontal axis ends, so that the ranked methods fill it; None where every point is near them.

    A method that broke the model lies so far out that all others would share one spot.
    """
    ranked = [entry.value(trade.x) or 0.0 for entry in trade.points if entry.rank is not None]
    if len(ranked) < 2:
        return None
    reach = max(max(ranked) - min(ranked), _NARROWEST)
    edge = max(ranked) + _BEYOND * reach
    return edge if any((entry.value(trade.x) or 0.0) > edge for entry in trade.points) else None


def _places(trade: Tradeoff, log: bool, edge: float | None) -> list[tuple[float, float]]:
    places = [(entry.value(trade.x) or 0.0, entry.value(trade.y) or 0.0) for entry in trade.points]
    if log:
        least = min((x for x, _ in places if x > 0), default=1.0)
        return [(x if x > 0 else least / 2, y) for x, y in places]
    return [(x if edge is None else min(x, edge), y) for x, y in places]


def _strength_lines(axes: Axes, trade: Tradeoff, places: Sequence[tuple[float, float]], theme: Theme) -> None:
    """Connects the strengths of a method, weakest first."""
    for method in dict.fromkeys(entry.method for entry in trade.points):
        found = [
            (entry.strength, place) for entry, place in zip(trade.points, places, strict=True) if entry.method == method
        ]
        if len(found) > 1:
            line = [place for _, place in sorted(found)]
            axes.plot([x for x, _ in line], [y for _, y in line], color=theme.arm("prior"), lw=0.9, ls=":", zorder=1)


def _error_bars(axes: Axes, entry: Entry, trade: Tradeoff, place: tuple[float, float], theme: Theme, log: bool) -> None:
    across, up = entry.measures[trade.x], entry.measures[trade.y]
    style = {"color": theme.muted, "lw": 0.8, "zorder": 2, "alpha": 0.35, "solid_capstyle": "butt"}
    known = across.low is not None and across.high is not None
    if known and place[0] == across.value and not (log and (across.low or 0.0) <= 0):
        axes.plot([across.low, across.high], [place[1]] * 2, **style)  # type: ignore[arg-type]
    if up.low is not None and up.high is not None:
        axes.plot([place[0]] * 2, [up.low, up.high], **style)  # type: ignore[arg-type]


def _mark(axes: Axes, entry: Entry, place: tuple[float, float], front: bool, theme: Theme) -> None:
    if entry.state == "anchor":
        retrained = entry.class_name == RETRAIN
        colour = theme.arm("matched_retrain") if retrained else theme.ink
        axes.plot(*place, "*" if retrained else "X", color=colour, ms=11 if retrained else 8, mew=0, zorder=6)
    elif entry.state == "ranked":
        axes.plot(*place, "o", color=theme.arm("attack" if front else "prior"), ms=7 if front else 5, mew=0, zorder=5)
    else:
        axes.plot(*place, "o", mfc="none", mec=theme.muted, ms=5, mew=1.1, zorder=4)


def _pareto_marks(trade: Tradeoff, theme: Theme) -> list[Line2D]:
    states = {entry.state for entry in trade.points}
    classes = {entry.class_name for entry in trade.points if entry.state == "anchor"}
    behind = any(entry.rank is not None and entry not in trade.front for entry in trade.points)
    known = [
        (bool(trade.front), Line2D([], [], color=theme.arm("attack"), marker="o", lw=1.6, ms=7, label="Pareto front")),
        (behind, _dot("o", theme.arm("prior"), "ranked")),
        ("gated" in states, Line2D([], [], ls="", marker="o", mfc="none", mec=theme.muted, ms=5, label="not ranked")),
        (RETRAIN in classes, _dot("*", theme.arm("matched_retrain"), "retrained")),
        (bool(classes - {RETRAIN}), _dot("X", theme.ink, "no unlearning")),
    ]
    return [mark for present, mark in known if present]


def _dot(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=colour, mew=0, ms=8, label=label)


def _figure(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelcolor=theme.muted, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
        label.set_fontsize(9)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure: Figure, theme: Theme, marks: Sequence[Line2D], *, columns: int) -> None:
    figure.legend(
        handles=list(marks),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=theme.ink,
    )
