"""From the results of a run to the figures of its report, each with an alternative text."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from retrace_pl.audit import CONTROLS
from retrace_pl.report.glossary import LEAKAGE, SIGNALS, arm_title, format_value
from retrace_pl.report.media import FigurePair, draw
from retrace_pl.report.palette import Theme
from retrace_pl.report.plots import Bar, auroc_figure, curve_figure, interval_figure, trace_figure
from retrace_pl.report.run_data import RunData

__all__ = [
    "arm_number",
    "arm_path",
    "auroc_picture",
    "baseline_curve_picture",
    "curve_pictures",
    "leakage_picture",
    "rivals",
    "success",
    "success_picture",
    "trace_pictures",
]

_LEAKAGE_COLOURS = {"excess": "attack", "avoidable": "matched_retrain", "record": "holdout"}


def success_picture(run: RunData) -> FigurePair:
    """Success under the evaluator: the attack, each searched or sampled control, its rivals and unseen real records."""
    names = ["attack", *(name for name in CONTROLS if name != "holdout"), *rivals(run)]
    values = [(arm_title(name), success(run, name)) for name in names]
    values.append(("Unseen real records", run.number("floors.heldout_sr_oracle")))

    def make(theme: Theme) -> Figure:
        bars = [_success_bar(run, name, theme) for name in names]
        title, value = values[-1]
        text = "" if value is None else format_value(value, percent=True)
        bars.append(Bar(title, value, None, None, theme.arm("holdout"), text))
        return interval_figure(bars, theme, limits=(0, 1), zero=False, label="share recognised as deleted data")

    known = "; ".join(
        f"{title} {'not run' if value is None else format_value(value, percent=True)}" for title, value in values
    )
    return draw(make, f"Success under the evaluator: {known}.", "Success under the independent evaluator.")


def rivals(run: RunData) -> list[str]:
    """Other searchers that ran at the same budget, as ``rivals.<name>``."""
    stored = run.get("rivals")
    return [f"rivals.{name}" for name in stored] if isinstance(stored, dict) else []


def success(run: RunData, arm: str) -> float | None:
    """Distribution-level success of an arm under the evaluator."""
    return run.number(f"{arm_path(arm)}.distribution.sr_oracle")


def arm_path(arm: str) -> str:
    """Where an arm's metrics are: ``attack``, ``rivals.<name>``, ``baselines.<name>`` or ``controls.<id>``."""
    return arm if arm == "attack" or arm.startswith(("rivals.", "baselines.")) else f"controls.{arm}"


def arm_number(run: RunData, arm: str, key: str) -> float | None:
    """A metric of an arm, e.g. ``"distribution.mse"``; prior only has no score, because it asked no model."""
    if arm == "prior" and key.endswith(".score"):
        return None
    return run.number(f"{arm_path(arm)}.{key}")


def _success_bar(run: RunData, name: str, theme: Theme) -> Bar:
    value = success(run, name)
    interval = run.get(f"{arm_path(name)}.distribution.intervals.sr_oracle") or (None, None)
    text = "" if value is None else format_value(value, percent=True)
    return Bar(arm_title(name), value, interval[0], interval[1], theme.arm(name.removeprefix("rivals.")), text)


def leakage_picture(run: RunData) -> FigurePair:
    """Excess, avoidable and record leakage with their intervals."""

    def make(theme: Theme) -> Figure:
        bars = []
        for kind, (title, _) in LEAKAGE.items():
            value, low, high = (run.number(f"leakage.{kind}.{key}") for key in ("value", "low", "high"))
            text = "" if value is None else f"{round(value, 2) + 0.0:+.2f}".replace("-", "\u2212")  # never -0.00
            bars.append(Bar(title, value, low, high, theme.arm(_LEAKAGE_COLOURS[kind]), text))
        ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None]
        limits = (min([-0.2, *ends]) - 0.05, max([0.2, *ends]) + 0.05)
        return interval_figure(bars, theme, limits=limits, zero=True, label="leakage (0: none)")

    parts = []
    for kind, (title, _) in LEAKAGE.items():
        value, low, high = (run.number(f"leakage.{kind}.{key}") for key in ("value", "low", "high"))
        measured = value is not None and low is not None and high is not None
        parts.append(f"{title} {value:+.2f}, interval {low:+.2f} to {high:+.2f}" if measured else f"{title} not run")
    return draw(make, f"Leakage with intervals: {'; '.join(parts)}.", "Leakage: left of or across zero is no evidence.")


def trace_pictures(run: RunData) -> list[FigurePair]:
    """One histogram for each signal that was measured."""
    pictures = []
    for signal, title in SIGNALS.items():
        groups = {group: run.vector(f"traces.{group}.{signal}") for group in ("forget", "retain", "unseen")}
        found = {group: values for group, values in groups.items() if values is not None and values.size}
        if not found:
            continue
        medians = ", ".join(f"{group} {np.median(values):.3g}" for group, values in found.items())
        pictures.append(
            draw(
                partial(trace_figure, found, label=title.lower()),
                f"Histogram of the {title.lower()} for deleted, retained and unseen records; medians: {medians}.",
                _caption(run, signal, title),
            )
        )
    return pictures


def _caption(run: RunData, signal: str, title: str) -> str:
    auroc = run.number(f"calibration.auroc.{signal}")
    return title if auroc is None else f"{title}: AUROC {auroc:.3f}"


def auroc_picture(run: RunData) -> FigurePair | None:
    """Calibration AUROCs, or None where the run has none."""
    stored = run.get("calibration.auroc")
    if not isinstance(stored, dict) or not stored:
        return None
    aurocs = {title: run.number(f"calibration.auroc.{signal}") for signal, title in SIGNALS.items()}
    parts = ", ".join(
        f"{title} {'not applicable' if value is None else format(value, '.3f')}" for title, value in aurocs.items()
    )
    return draw(partial(auroc_figure, aurocs), f"Calibration AUROC: {parts}.", "How well each signal sorts known data.")


def curve_pictures(run: RunData) -> list[FigurePair]:
    """Best score and mean of the best candidates against queries, for the attack, its controls and its rivals."""
    curves = {name: rows for name, rows in _curves(run).items() if not name.startswith("baselines.")}
    pictures = (
        _curve_picture(curves, 1, "best score", "Best score found so far."),
        _curve_picture(curves, 2, "mean of the best", "Mean score of the best candidates so far."),
    )
    return [picture for picture in pictures if picture is not None]


def baseline_curve_picture(run: RunData) -> FigurePair | None:
    """Mean of the best candidates against queries for the attack and those of the other attacks that climb the trace.

    In a figure of their own: with the controls and rivals there would be too many lines to follow.
    """
    curves = {name: rows for name, rows in _curves(run).items() if name == "attack" or name.startswith("baselines.")}
    if not any(name.startswith("baselines.") for name in curves):
        return None
    caption = "Mean score of the best candidates so far, for the attack and for others that climb the same trace."
    return _curve_picture(curves, 2, "mean of the best", caption)


def _curves(run: RunData) -> dict[str, NDArray[np.float64]]:
    """Rows (queries, best score, mean of the best) of each search, without those that are not finite."""
    curves = {}
    for name, rows in run.curves.items():
        table = np.asarray(rows, dtype=np.float64)
        if table.ndim == 2 and table.shape[1] >= 3 and len(table):
            curves[name] = table[np.isfinite(table).all(axis=1)]
    return {name: table for name, table in curves.items() if len(table)}


def _curve_picture(curves: dict[str, NDArray[np.float64]], column: int, label: str, caption: str) -> FigurePair | None:
    if not curves:
        return None
    ends = ", ".join(f"{arm_title(name)} {table[-1, column]:.2f}" for name, table in curves.items())
    make: Callable[[Theme], Figure] = partial(
        curve_figure, {name: table[:, [0, column]] for name, table in curves.items()}, label=label
    )
    return draw(make, f"{caption[:-1]} against queries; at the end: {ends}.", caption)
