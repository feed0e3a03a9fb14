"""Data sets and the splits of an audit."""

from retrace_pl.data.loading import EpochShuffle
from retrace_pl.data.module import SPLITS, UnlearningDataModule
from retrace_pl.data.sources import DigitsSource, ImageSource, SourceImages
from retrace_pl.data.tensors import LabelledTensors

__all__ = [
    "SPLITS",
    "DigitsSource",
    "EpochShuffle",
    "ImageSource",
    "LabelledTensors",
    "SourceImages",
    "UnlearningDataModule",
]
