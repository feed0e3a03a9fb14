"""A source out of arrays, and small data sets in the layouts of the real ones."""

from collections.abc import Callable

import numpy as np
import pytest

from retrace_pl.data import ImageSource, SourceImages
from retrace_pl.data.pixels import ArrayImages


class ArraySource(ImageSource):
    """Random images; counts how often it is opened."""

    def __init__(self, train, test, classes):
        self.train, self.test, self.classes = train, test, classes
        self.opened = 0

    @property
    def title(self):
        return "arrays"

    def open(self):
        self.opened += 1
        return SourceImages(self.train, self.test, self.classes)


def random_images(counts, seed=0, size=8, colours=1):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    shape = (len(labels), size, size) if colours == 1 else (len(labels), size, size, colours)
    return ArrayImages(rng.integers(0, 256, shape, dtype=np.uint8), labels, "test")


@pytest.fixture
def array_source() -> Callable[..., ArraySource]:
    def build(counts=(40, 30, 30), test_counts=None, size=8, colours=1):
        classes = tuple("abcdefghij"[: len(counts)])
        test = None if test_counts is None else random_images(test_counts, 1, size, colours)
        return ArraySource(random_images(counts, 0, size, colours), test, classes)

    return build


@pytest.fixture(autouse=True)
def _hub_cache(monkeypatch, tmp_path):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    datasets.disable_progress_bars()
