"""Figures of the report: matplotlib's object interface only, one function per figure, no shared state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from retrace_pl.report.glossary import arm_title
from retrace_pl.report.palette import LINES, SPARE_LINES, Theme

__all__ = ["Bar", "auroc_figure", "curve_figure", "interval_figure", "new_figure", "to_svg", "trace_figure"]

_GROUP_NAMES = {"forget": "deleted", "retain": "retained", "unseen": "unseen"}


@dataclass(frozen=True)
class Bar:
    """One row of an interval figure.

    Args:
        label: Text at the left.
        value: The estimate, or None for "not run".
        low: Lower end, or None where there is no interval.
        high: Upper end.
        colour: Colour of the row.
        text: Number as printed at the right.
    """

    label: str
    value: float | None
    low: float | None
    high: float | None
    colour: str
    text: str


def interval_figure(
    bars: Sequence[Bar], theme: Theme, *, limits: tuple[float, float], zero: bool, label: str
) -> Figure:
    """Estimates with intervals, one row each (a forest plot); rows without a value say "not run"."""
    figure, axes = new_figure(theme, 4.6, 0.75 + 0.34 * len(bars))
    lowest, highest = limits
    for row, bar in enumerate(reversed(bars)):
        if bar.value is None:
            _beside(axes, row, "not run", theme.muted)
            continue
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [row, row], color=bar.colour, lw=2.5, solid_capstyle="butt")
        axes.plot([bar.value], [row], "o", color=bar.colour, ms=7, clip_on=False)
        _beside(axes, row, bar.text, theme.ink)
    if zero:
        axes.axvline(0, color=theme.ink, lw=1)
    axes.set_yticks(range(len(bars)), [bar.label for bar in reversed(bars)])
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlim(lowest, highest)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=theme.grid, lw=0.8)
    axes.tick_params(axis="y", length=0, pad=8, labelcolor=theme.ink)  # a mark at the left end reaches into the labels
    axes.spines["left"].set_visible(False)
    return figure


def trace_figure(groups: Mapping[str, NDArray[np.float32]], theme: Theme, label: str) -> Figure:
    """Histograms of one signal for deleted (filled), retained (grey, filled) and unseen (outline) records."""
    figure, axes = new_figure(theme, 3.3, 2.6)
    values = np.concatenate([values for values in groups.values() if values.size])
    low, high = np.quantile(values, [0.0, 0.995])
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 33)
    for name in ("retain", "forget", "unseen"):
        if name not in groups or not groups[name].size:
            continue
        counts, _ = np.histogram(np.clip(groups[name], low, high), edges)
        share = 100 * counts / counts.sum()
        colour = theme.groups[name]
        filled = name != "unseen"
        axes.stairs(
            share,
            edges,
            fill=filled,
            color=colour,
            alpha=0.72 if filled else 1.0,
            lw=1.5,
            ls="-" if filled else (0, (3, 1.5)),
            label=_GROUP_NAMES[name],
        )
    axes.set_xlabel(label)
    axes.set_ylabel("% of records")
    axes.set_xlim(low, high)
    _legend(axes, theme, columns=3)
    return figure


def curve_figure(curves: Mapping[str, NDArray[np.float64]], theme: Theme, label: str) -> Figure:
    """Score against queries; one line for each search, arrays [n, 2] of queries and score."""
    figure, axes = new_figure(theme, 4.6, 3.2)
    spare = 0
    for name, rows in curves.items():
        colour = theme.arm(name, spare)
        spare += name not in theme.arms
        line = LINES.get(name, SPARE_LINES[(spare - 1) // len(theme.spare) % len(SPARE_LINES)])
        width = 2.6 if name == "attack" else 1.8
        title = arm_title(name).replace("$", r"\$")
        axes.plot(rows[:, 0], rows[:, 1], color=colour, lw=width, ls=line, label=title)
        if len(rows) == 1:
            axes.plot(rows[:, 0], rows[:, 1], "o", color=colour, ms=5)
    axes.set_xlabel("queries")
    axes.set_ylabel(label)
    axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.05)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    axes.grid(color=theme.grid, lw=0.8)
    _legend(axes, theme, columns=2)
    return figure


def auroc_figure(aurocs: Mapping[str, float | None], theme: Theme) -> Figure:
    """AUROC of each signal on public data, with the line of a coin toss; a missing one says "not applicable"."""
    figure, axes = new_figure(theme, 4.6, 0.75 + 0.34 * len(aurocs))
    for row, value in enumerate(reversed(list(aurocs.values()))):
        if value is None:
            _beside(axes, row, "not applicable", theme.muted)
            continue
        colour = theme.groups["forget"]
        axes.plot([0.5, value], [row, row], color=colour, lw=2.5, solid_capstyle="butt")
        axes.plot([value], [row], "D", color=colour, ms=6, clip_on=False)
        _beside(axes, row, f"{value:.3f}", theme.ink)
    axes.axvline(0.5, color=theme.ink, lw=1)
    axes.set_yticks(range(len(aurocs)), list(reversed(list(aurocs))))
    axes.set_ylim(-0.6, len(aurocs) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUROC (0.5: a coin toss)")
    axes.grid(axis="x", color=theme.grid, lw=0.8)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.spines["left"].set_visible(False)
    return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG with a transparent background; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "retrace_pl", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def new_figure(theme: Theme, width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes in the theme's colours; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelcolor=theme.muted, labelsize=9)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    axes.set_axisbelow(True)
    return figure, axes


def _beside(axes: Axes, row: int, text: str, colour: str) -> None:
    axes.text(1.05, row, text, transform=axes.get_yaxis_transform(), va="center", size=9, color=colour)


def _legend(axes: Axes, theme: Theme, *, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=theme.ink
        )
