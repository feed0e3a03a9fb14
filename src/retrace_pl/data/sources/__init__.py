"""Data sets; images are opened without decoding them."""

from retrace_pl.data.sources.base import DataSource, ImageSource, SourceImages
from retrace_pl.data.sources.digits import DigitsSource
from retrace_pl.data.sources.folder import ImageFolderSource
from retrace_pl.data.sources.huggingface import HuggingFaceSource
from retrace_pl.data.sources.medmnist import MedMNISTSource
from retrace_pl.data.sources.torchvision import TorchvisionSource

__all__ = [
    "DataSource",
    "DigitsSource",
    "HuggingFaceSource",
    "ImageFolderSource",
    "ImageSource",
    "MedMNISTSource",
    "SourceImages",
    "TorchvisionSource",
]
