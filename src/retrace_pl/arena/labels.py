"""Names and numbers of the points of a figure, placed so that they can be read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from retrace_pl.arena.pareto import Tradeoff
from retrace_pl.report.palette import Theme

LONGEST_NAME = 26
FONT = 8.0
_OFFSETS = [
    (across * reach, up * reach)
    for reach in (6.0, 11.0, 17.0)
    for across, up in (
        (1.0, 0.6),
        (1.0, -0.6),
        (-1.0, 0.6),
        (-1.0, -0.6),
        (0.0, 1.0),
        (0.0, -1.0),
        (1.0, 0.0),
        (-1.0, 0.0),
    )
]


def plain_name(name: str) -> str:
    """A name as a figure can draw it: one line, not too long, in letters that its font has.

    Args:
        name: any text.
    """
    one_line = " ".join(name.split())
    drawn = re.sub(r"[^\u0020-\u024f]", "?", one_line)
    return drawn if len(drawn) <= LONGEST_NAME else drawn[: LONGEST_NAME - 1] + "…"


def name_points(
    figure: Figure, axes: Axes, trade: Tradeoff, places: Sequence[tuple[float, float]], theme: Theme
) -> None:
    """Labels points where no other label, and as few points as possible, lie; the front and anchors in any case.

    Args:
        figure: the figure, complete but for the labels; its layout is fixed here.
        axes: its axes.
        trade: the points.
        places: where they lie, in data coordinates.
        theme: colours.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    dots = [tuple(axes.transData.transform(place)) for place in places]
    taken: list[Bbox] = []
    named = {"anchor"}

    def importance(index: int) -> tuple[bool, bool, float]:
        entry = trade.points[index]
        return entry not in trade.front, entry.state not in named, entry.number or 0

    for index in sorted(range(len(places)), key=importance):
        entry = trade.points[index]
        must = entry in trade.front or entry.state in named
        text = axes.annotate(
            plain_name(entry.label) if must else str(entry.number),
            places[index],
            xytext=(0, 0),
            textcoords="offset points",
            size=FONT if must else FONT - 1,
            color=theme.ink if must else theme.muted,
            parse_math=False,
            zorder=7,
        )
        extent = text.get_window_extent()
        size = extent.width, extent.height
        boxes = {offset: _box(dots[index], offset, size, scale) for offset in _OFFSETS}
        clashes = {offset: _clash(box, taken, dots, axes.bbox, scale) for offset, box in boxes.items()}
        best = min(_OFFSETS, key=clashes.__getitem__)
        if not must and clashes[best] >= 1:
            text.remove()
            continue
        text.set_position(best)
        text.set_horizontalalignment("left" if best[0] > 0 else "right" if best[0] < 0 else "center")
        text.set_verticalalignment("bottom" if best[1] > 0 else "top" if best[1] < 0 else "center")
        taken.append(boxes[best])


def _box(dot: tuple[float, ...], offset: tuple[float, float], size: tuple[float, float], scale: float) -> Bbox:
    """What a label of a size covers beside its point, in pixels; drawing it at every place would take seconds."""
    (x, y), (width, height) = ((at + scale * by) for at, by in zip(dot, offset, strict=True)), size
    left = x - (0 if offset[0] > 0 else width if offset[0] < 0 else width / 2)
    bottom = y - (0 if offset[1] > 0 else height if offset[1] < 0 else height / 2)
    return Bbox.from_bounds(left, bottom, width, height)


def _clash(box: Bbox, taken: Sequence[Bbox], dots: Sequence[tuple[float, ...]], inside: Bbox, scale: float) -> float:
    """How bad a place for a label is: others' labels first, then leaving the axes, then points under it."""
    labels = sum(box.overlaps(other) for other in taken)
    outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
    reach = 2 * scale
    covered = sum(box.x0 - reach < x < box.x1 + reach and box.y0 - reach < y < box.y1 + reach for x, y in dots)
    return float(100 * labels + 100 * outside + covered)
