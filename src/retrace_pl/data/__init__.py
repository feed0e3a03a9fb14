"""Data sets and the splits of an audit."""

from retrace_pl.data.loading import EpochShuffle
from retrace_pl.data.module import SPLITS, UnlearningDataModule
from retrace_pl.data.pixels import RawImages
from retrace_pl.data.sources import (
    DigitsSource,
    HuggingFaceSource,
    ImageFolderSource,
    ImageSource,
    MedMNISTSource,
    SourceImages,
    TorchvisionSource,
)
from retrace_pl.data.tensors import LabelledTensors

__all__ = [
    "SPLITS",
    "DigitsSource",
    "EpochShuffle",
    "HuggingFaceSource",
    "ImageFolderSource",
    "ImageSource",
    "LabelledTensors",
    "MedMNISTSource",
    "RawImages",
    "SourceImages",
    "TorchvisionSource",
    "UnlearningDataModule",
]
