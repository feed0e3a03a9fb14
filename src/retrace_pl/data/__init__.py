"""Data sets and the splits of an audit."""

from retrace_pl.data.base import SPLITS, AuditDataModule
from retrace_pl.data.loading import EpochShuffle
from retrace_pl.data.module import UnlearningDataModule
from retrace_pl.data.pixels import RawImages
from retrace_pl.data.records import LabelledRecords
from retrace_pl.data.sources import (
    DataSource,
    DigitsSource,
    HuggingFaceSource,
    ImageFolderSource,
    ImageSource,
    MedMNISTSource,
    SourceImages,
    TorchvisionSource,
)
from retrace_pl.data.tensors import LabelledTensors
from retrace_pl.data.text import (
    HuggingFaceTextSource,
    LabelledTexts,
    PretrainedTokenizer,
    TextSource,
    TextTokenizer,
    TextUnlearningDataModule,
    TokenizerSource,
    TrainedTokenizer,
)

__all__ = [
    "SPLITS",
    "AuditDataModule",
    "DataSource",
    "DigitsSource",
    "EpochShuffle",
    "HuggingFaceSource",
    "HuggingFaceTextSource",
    "ImageFolderSource",
    "ImageSource",
    "LabelledRecords",
    "LabelledTensors",
    "LabelledTexts",
    "MedMNISTSource",
    "PretrainedTokenizer",
    "RawImages",
    "SourceImages",
    "TextSource",
    "TextTokenizer",
    "TextUnlearningDataModule",
    "TokenizerSource",
    "TorchvisionSource",
    "TrainedTokenizer",
    "UnlearningDataModule",
]
