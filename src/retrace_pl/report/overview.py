"""One small picture of a whole audit, for a README or a message."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from retrace_pl.files import atomic_path
from retrace_pl.report.figures import success
from retrace_pl.report.glossary import arm_title, format_value
from retrace_pl.report.html import VERDICTS
from retrace_pl.report.media import to_pixels
from retrace_pl.report.palette import LIGHT
from retrace_pl.report.run_data import RunData

__all__ = ["draw_overview", "overview_figure"]

Shown: TypeAlias = NDArray[np.float32] | list[str] | None

_COLUMNS, _LINE = 12, 116
_WIDTH, _CELL, _LABEL = 9.0, 0.58, 1.9
_STRIPS = {"leak": ("#fdf0e8", "#a33100"), "no_evidence": ("#ebf4fa", "#0b5a8a"), "invalid": ("#fbf4dd", "#6a4f00")}
_STRIPS["not_judged"] = _STRIPS["no_evidence"]


def overview_figure(run_folder: Path) -> Path:
    """Writes ``overview.png`` into a run folder: the verdict, then deleted, reconstructed, prior and retrain pictures.

    Of candidates that are texts the first of each row is written out.

    Args:
        run_folder: A folder with at least ``metrics.json``; rows without stored candidates say "not run".

    Raises:
        InputError: If the folder has no ``metrics.json``.
        RunError: If a file is damaged or the picture cannot be written.
    """
    path = run_folder / "overview.png"
    buffer = io.BytesIO()
    draw_overview(RunData.load(run_folder)).savefig(buffer, format="png", dpi=140, metadata={"Software": None})
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return path


def draw_overview(run: RunData) -> Figure:
    """The overview as a figure."""
    rows = [("Deleted records", "nearest to the row below", _shown(run, "attack.nearest"), LIGHT.muted)]
    for arm in ("attack", "prior", "matched_retrain"):
        value = success(run, arm)
        text = "" if value is None else f"{format_value(value, percent=True)} recognised"
        title = "Reconstructed" if arm == "attack" else arm_title(arm)
        rows.append((title, text, _shown(run, f"{arm}.distribution"), LIGHT.arm(arm)))
    reason = textwrap.fill(textwrap.shorten(str(run.get("verdict_reason") or ""), 400), 148)
    strip = 0.52 + 0.14 * (reason.count("\n") + 1)
    height = strip + 0.25 + len(rows) * (_CELL + 0.1)
    figure = Figure(figsize=(_WIDTH, height), facecolor=LIGHT.paper)
    FigureCanvasAgg(figure)
    _strip(figure, run, reason, (strip, height))
    for index, (title, text, images, colour) in enumerate(rows):
        _row(figure, height - strip - 0.1 - (index + 1) * (_CELL + 0.1), height, (title, text, colour), images)
    return figure


def _shown(run: RunData, name: str) -> Shown:
    """Pictures, or the texts of candidates that are read."""
    return run.texts.get(name) or run.images(name)


def _strip(figure: Figure, run: RunData, reason: str, size: tuple[float, float]) -> None:
    strip, height = size
    verdict = str(run.get("verdict"))
    background, ink = _STRIPS.get(verdict, _STRIPS["invalid"])
    bottom = 1 - strip / height
    figure.add_artist(Rectangle((0, bottom), 1, 1 - bottom, facecolor=background, transform=figure.transFigure))
    figure.add_artist(Rectangle((0, bottom), 0.008, 1 - bottom, facecolor=ink, transform=figure.transFigure))
    word = VERDICTS.get(verdict, (verdict, ""))[0]
    left = 0.22 / _WIDTH
    name = textwrap.shorten(run.title, 70)
    figure.text(
        left, 1 - 0.1 / height, f"{word}: {name}", va="top", size=11, weight="bold", color=ink, parse_math=False
    )
    figure.text(
        left, 1 - 0.36 / height, reason, va="top", size=7.5, color=LIGHT.ink, linespacing=1.35, parse_math=False
    )


def _row(figure: Figure, bottom: float, height: float, label: tuple[str, str, str], images: Shown) -> None:
    title, text, colour = label
    middle = (bottom + _CELL / 2) / height
    left = 0.22 / _WIDTH
    figure.text(left, middle + 0.08 / height, title, va="center", size=9, weight="bold", color=colour)
    figure.text(left, middle - 0.11 / height, text, va="center", size=7.5, color=LIGHT.muted)
    if images is None:
        figure.text(_LABEL / _WIDTH, middle, "not run", va="center", size=9, style="italic", color=LIGHT.muted)
        return
    if isinstance(images, list):
        told = textwrap.shorten(_drawable(images[0]), 2 * _LINE, placeholder=" …")
        text = textwrap.fill(told, _LINE) or "empty"
        figure.text(_LABEL / _WIDTH, middle, text, va="center", size=8, color=LIGHT.ink, parse_math=False)
        return
    for column in range(min(_COLUMNS, len(images))):
        x = _LABEL + column * _CELL
        axes = figure.add_axes((x / _WIDTH, bottom / height, 0.95 * _CELL / _WIDTH, 0.95 * _CELL / height))
        axes.imshow(to_pixels(images[column]), interpolation="nearest")
        axes.set_axis_off()


def _drawable(text: str) -> str:
    """A text in characters that the figure's font has; others become a box that says so."""
    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(letter if letter.isspace() or ord(letter) in known else "\u25a1" for letter in text)
