"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from retrace_pl.data.pixels import ArrayImages
from retrace_pl.data.sources.base import ImageSource, SourceImages


class DigitsSource(ImageSource):
    """scikit-learn's bundled handwritten digits: 1,797 greyscale images of 8x8 pixels, ten classes, no download."""

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return "digits"

    def open(self) -> SourceImages:
        """Read the bundled file; its 17 grey levels are spread over 0 to 255."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        images = ArrayImages(pixels, bunch.target, "digits")
        return SourceImages(train=images, test=None, classes=tuple(str(name) for name in bunch.target_names))
