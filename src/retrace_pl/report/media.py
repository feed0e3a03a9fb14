"""Pictures and figures as data URIs, so that the report needs no other file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from retrace_pl.report.palette import DARK, LIGHT, Theme
from retrace_pl.report.plots import to_svg

__all__ = ["FigurePair", "data_uri", "draw", "image_uri", "recolour", "to_pixels"]

_PARTNERS = {light.encode(): dark.encode() for light, dark in zip(LIGHT.colours(), DARK.colours(), strict=True)}


@dataclass(frozen=True)
class FigurePair:
    """A figure in both colour schemes.

    Args:
        light: Data URI for light backgrounds.
        dark: Data URI for dark backgrounds.
        alt: What it shows, for people who cannot see it.
        caption: Line below it.
        width: Natural width in CSS pixels.
        height: Natural height in CSS pixels.
    """

    light: str
    dark: str
    alt: str
    caption: str
    width: int
    height: int


def data_uri(content: bytes, mime: str) -> str:
    """Bytes as a ``data:`` URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def to_pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture [1|3, H, W] in [0, 1] as uint8 [H, W, 3]; values outside the range, NaN included, are clipped."""
    clipped = np.clip(np.nan_to_num(image, nan=0.0), 0.0, 1.0)
    pixels = np.round(255 * clipped).astype(np.uint8).transpose(1, 2, 0)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def image_uri(image: NDArray[np.float32]) -> str:
    """A picture [1|3, H, W] in [0, 1] as a PNG data URI at its own size; the style sheet enlarges it."""
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(image)).save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue(), "image/png")


def draw(make: Callable[[Theme], Figure], alt: str, caption: str = "") -> FigurePair:
    """Draws a figure for light backgrounds and recolours it for dark ones."""
    figure = make(LIGHT)
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    light = to_svg(figure)
    return FigurePair(
        data_uri(light, "image/svg+xml"), data_uri(recolour(light), "image/svg+xml"), alt, caption, width, height
    )


def recolour(svg: bytes) -> bytes:
    """The same drawing with each colour of the light theme replaced by its partner of the dark one.

    Drawing twice would double the time of a report; every colour of a figure comes from its theme, as ``#rrggbb``.
    """
    return re.sub(rb"#[0-9a-f]{6}\b", lambda match: _PARTNERS.get(match[0], match[0]), svg)
