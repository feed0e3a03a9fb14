"""Image data sets, each opened without decoding it."""

from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.data.sources.digits import DigitsSource

__all__ = ["DigitsSource", "ImageSource", "SourceImages"]
