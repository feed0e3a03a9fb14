"""A setting of the benchmark's kind that trains in a second: the bundled digits and a small network."""

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torch import nn

from retrace_pl.data import SourceImages
from retrace_pl.data.pixels import ArrayImages
from retrace_pl.mls_bench import api, data, settings
from retrace_pl.models import ImageClassifier

TINY = {
    "train_limit": 60,
    "test_limit": 30,
    "pretrain_epochs": 12,
    "unlearn_epochs": 1,
    "batch_size": 64,
    "pretrain_lr": 0.1,
}


class TinyNet(ImageClassifier):
    """Two layers on an 8x8 version of the image, with batch normalisation."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes, 64)
        self.body = nn.Sequential(
            nn.AvgPool2d(4), nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 36, 64), nn.ReLU(),
        )  # fmt: skip
        self.reset_parameters()

    def embed(self, inputs):
        return self.body(inputs)


class Digits:
    """Every third record is a test record."""

    title = "digits"

    def open(self):
        digits = load_digits()
        pixels = (digits.images * 15.9).astype(np.uint8)
        test = np.arange(len(pixels)) % 3 == 0
        parts = [ArrayImages(pixels[mask], digits.target[mask], "digits") for mask in (~test, test)]
        return SourceImages(parts[0], parts[1], tuple("0123456789"))


@contextmanager
def _digits_setting():
    """Adds the setting for as long as the block runs; gives its name."""
    with pytest.MonkeyPatch.context() as patch:
        task = settings.Task("tinynet-digits", "digits", 10, TinyNet, 30)
        patch.setitem(settings.TASKS, task.name, task)
        patch.setattr(data, "find_source", lambda task, folder=None: Digits())
        api._decoded.cache_clear()
        yield f"{task.name}-class3"
    api._decoded.cache_clear()


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    """f+ and the reference of `TINY`, trained once."""
    folder = tmp_path_factory.mktemp("mls-bench")
    with _digits_setting() as name:
        benchmark = api.prepare_benchmark(name, preset="smoke", output=folder, **TINY)
        benchmark.original()
        benchmark.retrained()
    return folder


@pytest.fixture
def digits():
    """The name of the setting."""
    with _digits_setting() as name:
        yield name


@pytest.fixture
def trained(_trained, tmp_path):
    """An output folder in which f+ and the reference are trained already."""
    return shutil.copytree(_trained, tmp_path / "trained")


@pytest.fixture
def benchmark_digits(digits, trained):
    return api.prepare_benchmark(digits, preset="smoke", output=trained, **TINY)
