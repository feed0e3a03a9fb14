"""Data sets of torchvision, by class name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace_pl.data.paths import expand, one_line
from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.errors import InputError

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels")
_SAMPLE_ATTRIBUTES = ("_samples", "samples")
_SPLIT_NAMES = {True: ("train", "trainval"), False: ("test", "val")}  # torchvision's names of the two partitions
_CLASSIFICATION = (
    "CIFAR10", "CIFAR100", "Country211", "DTD", "FGVCAircraft", "FashionMNIST", "Flowers102", "Food101", "GTSRB",
    "ImageNet", "Imagenette", "KMNIST", "MNIST", "OxfordIIITPet", "RenderedSST2", "STL10", "SVHN", "StanfordCars",
)  # fmt: skip


class TorchvisionSource(ImageSource):
    """A torchvision data set by class name: FashionMNIST, MNIST, CIFAR10, CIFAR100, SVHN, Food101, ...

    Labels are read without decoding images.

    Args:
        name: Name of a class in ``torchvision.datasets``: CIFAR10, CIFAR100, Country211, DTD, FGVCAircraft,
            FashionMNIST, Flowers102, Food101, GTSRB, ImageNet, Imagenette, KMNIST, MNIST, OxfordIIITPet, RenderedSST2,
            STL10, SVHN or StanfordCars.
        root: Folder that holds or will hold the data; ``~`` and environment variables are expanded.
        download: Download what is missing to ``root``, or unpack archives that are already there.
    """

    def __init__(self, name: str, root: str, download: bool = False) -> None:
        self.name = name
        self.root = root
        self.download = download

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return self.name

    def open(self) -> SourceImages:
        """Open both partitions.

        Raises:
            InputError: If there is no such data set, or it is corrupt, or not under ``root`` and cannot be put there.
        """
        factory = self._factory()
        root = Path(expand(self.root, "root"))
        if not self.download and not root.is_dir():
            raise InputError(f"root: the folder {root} does not exist; check the path or set download: true")
        train = _Partition(self._load(factory, root, train=True), self.name)
        test = _Partition(self._load(factory, root, train=False), self.name)
        names = getattr(train.dataset, "classes", None)
        if names is None:
            names = range(int(max(train.labels.max(), test.labels.max())) + 1)
        return SourceImages(train=train, test=test, classes=tuple(map(_class_name, names)))

    def _factory(self) -> Callable[..., Any]:
        from torchvision import datasets

        if self.name not in _CLASSIFICATION:
            raise InputError(
                f"name: there is no classification data set {self.name!r}; choose from {', '.join(_CLASSIFICATION)}"
            )
        factory: Callable[..., Any] = getattr(datasets, self.name)
        return factory

    def _load(self, factory: Callable[..., Any], root: Path, *, train: bool) -> Any:
        options: dict[str, Any] = {"root": str(root)}
        parameters = inspect.signature(factory).parameters
        if "download" in parameters:
            options["download"] = self.download
        try:
            if "train" in parameters:
                return factory(**options, train=train)
            return _load_split(factory, options, _SPLIT_NAMES[train])
        except Exception as error:
            raise InputError(self._explain(error, root)) from error

    def _explain(self, error: Exception, root: Path) -> str:
        if isinstance(error, PermissionError) or (self.download and not _writable(root)):
            return (
                f"root: {root} cannot be written to, and download: true unpacks {self.name} there; copy the folder to a"
                " writable place and name that"
            )
        if isinstance(error, RuntimeError) and "not found" in str(error).lower() and not self.download:
            return f"root: {self.name} is not under {root}; name the folder that holds it or set download: true"
        if isinstance(error, OSError) and self.download:
            return f"{self.name} cannot be downloaded to {root}; check the network ({one_line(error)})"
        return f"{self.name} under {root} cannot be read; the files are corrupt or incomplete ({one_line(error)})"


class _Partition:
    """A torchvision data set as :class:`RawImages`."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset = dataset
        self.labels = _labels(dataset, name)

    def image(self, index: int) -> Image.Image:
        image = self.dataset[index][0]
        assert isinstance(image, Image.Image)
        return image


def _labels(dataset: Any, name: str) -> NDArray[np.int64]:
    for attribute in _LABEL_ATTRIBUTES:
        values = getattr(dataset, attribute, None)
        if values is not None and np.ndim(values) == 1:
            return np.asarray(values, dtype=np.int64)
    for attribute in _SAMPLE_ATTRIBUTES:
        samples = getattr(dataset, attribute, None)
        if samples is not None:
            return np.array([label for _, label in samples], dtype=np.int64)
    raise InputError(f"name: torchvision's {name} does not give one class per image; use a classification data set")


def _load_split(factory: Callable[..., Any], options: Mapping[str, Any], names: tuple[str, str]) -> Any:
    """Open the partition by the first of its names, or by the second where the data set does not know the first."""
    try:
        return factory(**options, split=names[0])
    except ValueError as error:
        if "Unknown value" not in str(error):
            raise
    return factory(**options, split=names[1])


def _class_name(name: Any) -> str:
    return name if isinstance(name, str) else "/".join(name) if isinstance(name, tuple | list) else str(name)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)
