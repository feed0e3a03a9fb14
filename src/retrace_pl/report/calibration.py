"""The calibration page: what the score makes of inputs whose answer is known. The attack never sees any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from retrace_pl.report.glossary import SIGNALS, format_value
from retrace_pl.report.media import FigurePair, draw
from retrace_pl.report.palette import Theme
from retrace_pl.report.plots import new_figure
from retrace_pl.report.run_data import RunData

__all__ = ["CalibrationPage", "GroupRow", "SignalRow", "calibration_page", "group_figure", "reliability_figure"]

GROUPS = {
    "forget": "Deleted records",
    "unseen": "Unseen, of the deleted kind",
    "retain": "Retained records",
    "public": "Public records",
    "noise": "Noise",
    "mixup": "Mixtures",
}
"""Group of inputs -> its name, in the order of the page."""

_QUANTILES = ("q05", "q25", "q50", "q75", "q95")


@dataclass(frozen=True)
class SignalRow:
    """How well one signal tells known inputs apart.

    Args:
        title: Name of the signal.
        auroc: AUROC as printed.
        tpr: True positives at 1 % false ones as printed.
        weight: Its fitted weight as printed; empty unless the weights were fitted.
    """

    title: str
    auroc: str
    tpr: str
    weight: str


@dataclass(frozen=True)
class GroupRow:
    """The score on one group of inputs: name, count, mean and quantiles as printed."""

    title: str
    count: str
    mean: str
    quantiles: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationPage:
    """Everything the page shows.

    Args:
        signals: One row for each signal and the score.
        fitted: Whether there is a column of fitted weights.
        groups: One row for each group of inputs.
        figures: The groups and the reliability curve.
        error: Expected calibration error as printed, or empty.
        shadow: What the shadow unlearning was, in a sentence; empty where there is none.
    """

    signals: tuple[SignalRow, ...]
    fitted: bool
    groups: tuple[GroupRow, ...]
    figures: tuple[FigurePair, ...]
    error: str
    shadow: str


def calibration_page(run: RunData) -> CalibrationPage | None:
    """The page, or None for a run without groups of known inputs."""
    stored = run.get("calibration.groups")
    if not isinstance(stored, dict) or not stored:
        return None
    names = [name for name in GROUPS if name in stored] + [name for name in stored if name not in GROUPS]
    figures = [_group_picture({name: stored[name] for name in names})]
    curve = run.get("calibration.reliability")
    if isinstance(curve, dict):
        figures.append(_reliability_picture(curve))
    error = run.number("calibration.reliability.error")
    return CalibrationPage(
        signals=tuple(_signal_row(run, name, title) for name, title in SIGNALS.items()),
        fitted=isinstance(run.get("trace_weights"), dict),
        groups=tuple(_group_row(name, stored[name]) for name in names),
        figures=tuple(figures),
        error="" if error is None else format_value(error),
        shadow=_shadow(run),
    )


def _signal_row(run: RunData, name: str, title: str) -> SignalRow:
    tpr = run.number("calibration.tpr_at_1pct_fpr" if name == "score" else f"calibration.tpr_by_signal.{name}")
    auroc, weight = run.number(f"calibration.auroc.{name}"), run.number(f"trace_weights.weights.{name}")
    return SignalRow(
        title,
        "not applicable" if auroc is None else f"{auroc:.3f}",
        "not applicable" if tpr is None else format_value(tpr, percent=True),
        "" if weight is None else f"{weight:.2f}",
    )


def _group_row(name: str, facts: Mapping[str, Any]) -> GroupRow:
    title = GROUPS.get(name, name)
    quantiles = tuple(f"{float(facts[key]):.3f}" for key in _QUANTILES)
    return GroupRow(title, f"{int(facts['count']):,}", f"{float(facts['mean']):.3f}", quantiles)


def _group_picture(groups: Mapping[str, Mapping[str, Any]]) -> FigurePair:
    words = ", ".join(f"{GROUPS.get(name, name)} {float(facts['q50']):.2f}" for name, facts in groups.items())
    caption = "Score by kind of input: median, half and nine tenths of the inputs."
    return draw(partial(group_figure, groups), f"Score by kind of input; medians: {words}.", caption)


def group_figure(groups: Mapping[str, Mapping[str, Any]], theme: Theme) -> Figure:
    """Median (dot), quartiles (thick line) and 5 % to 95 % (thin line) of the score for each group, one row each."""
    figure, axes = new_figure(theme, 4.6, 0.75 + 0.34 * len(groups))
    for row, (name, facts) in enumerate(reversed(list(groups.items()))):
        low, first, middle, third, high = (float(facts[key]) for key in _QUANTILES)
        colour = theme.groups.get(name, theme.muted)
        axes.plot([low, high], [row, row], color=colour, lw=1.2, solid_capstyle="butt")
        axes.plot([first, third], [row, row], color=colour, lw=5, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=colour, ms=7, mec=theme.ink, mew=0.8, clip_on=False)
    axes.set_yticks(range(len(groups)), [GROUPS.get(name, name) for name in reversed(list(groups))])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("score")
    axes.grid(axis="x", color=theme.grid, lw=0.8)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.spines["left"].set_visible(False)
    return figure


def _reliability_picture(curve: Mapping[str, Any]) -> FigurePair:
    points = [
        f"{low:.1f} to {high:.1f}: {100 * share:.0f}%"
        for low, high, share in zip(curve["edges"], curve["edges"][1:], curve["share"], strict=False)
        if share is not None
    ]
    caption = "Share of deleted-kind inputs among all inputs with that score, were there equally many of both kinds."
    return draw(partial(reliability_figure, curve), f"Reliability of the score; {', '.join(points)}.", caption)


def reliability_figure(curve: Mapping[str, Any], theme: Theme) -> Figure:
    """Share of inputs of the deleted kind in every bin of the score, with intervals, and the diagonal."""
    figure, axes = new_figure(theme, 4.6, 3.2)
    axes.plot([0, 1], [0, 1], color=theme.muted, lw=1, ls=(0, (4, 3)))
    centres, shares, ends = _points(curve)
    colour = theme.groups["forget"]
    for centre, (low, high) in zip(centres, ends, strict=True):
        axes.plot([centre, centre], [low, high], color=colour, lw=2, solid_capstyle="butt")
    axes.plot(centres, shares, "-o", color=colour, ms=5, lw=1.4)
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("score")
    axes.set_ylabel("share of the deleted kind")
    axes.grid(color=theme.grid, lw=0.8)
    return figure


def _points(curve: Mapping[str, Any]) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    edges: Sequence[float] = curve["edges"]
    held = [index for index, share in enumerate(curve["share"]) if share is not None]
    centres = [(edges[index] + edges[index + 1]) / 2 for index in held]
    return centres, [curve["share"][i] for i in held], [(curve["low"][i], curve["high"][i]) for i in held]


def _shadow(run: RunData) -> str:
    facts = run.get("shadow")
    if not isinstance(facts, dict):
        return ""
    return (
        f"The shadow unlearning deleted {facts.get('deletion')}: {facts.get('deleted')} records of "
        f"{int(facts.get('deleted') or 0) + int(facts.get('retained') or 0)} in one half of the public set; the other "
        f"half, which its models never saw, has {facts.get('unseen')} of that kind."
    )
