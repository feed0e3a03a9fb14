"""Image data sets of the Hugging Face ``datasets`` library, from the hub or from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace_pl.data.paths import expand, explained, one_line
from retrace_pl.data.sources.base import ImageSource, SourceImages, index_labels
from retrace_pl.errors import InputError

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixels")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category")
_TEST_SPLITS = ("test", "validation", "valid", "val")


class HuggingFaceSource(ImageSource):
    """A Hugging Face image data set: a hub name, or a local folder of parquet files or in imagefolder layout.

    Partitions: ``train``, and the first of ``test``, ``validation``, ``valid`` and ``val`` that exists. Classes are the
    names of a ClassLabel column, or the sorted distinct values of any other label column.

    Args:
        path: Name on the hub (``owner/name``), or a folder; ``~`` and environment variables are expanded.
        image_column: Column with the images. None: the only image column, or one of the usual names.
        label_column: Column with the classes. None: the only ClassLabel column, or one of the usual names.
    """

    def __init__(self, path: str, image_column: str | None = None, label_column: str | None = None) -> None:
        self.path = path
        self.image_column = image_column
        self.label_column = label_column

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return Path(self.path).name

    def open(self) -> SourceImages:
        """Open both partitions and read the labels.

        Raises:
            InputError: If the data set cannot be found, reached or read, or its columns cannot be told apart.
        """
        partitions = self._load()
        if "train" not in partitions:
            raise InputError(f"path: {self.path} has no train partition; it has {', '.join(map(str, partitions))}")
        train = partitions["train"]
        test = next((partitions[name] for name in _TEST_SPLITS if name in partitions), None)
        image_column = self._find_image_column(train.features)
        label_column = self._find_label_column(train.features, image_column)

        classes = _classes(train, label_column)
        opened = [
            None if part is None else self._partition(part, name, image_column, label_column, classes)
            for name, part in (("train", train), ("test", test))
        ]
        assert opened[0] is not None
        return SourceImages(train=opened[0], test=opened[1], classes=tuple(map(str, classes)))

    def _load(self) -> Any:
        import datasets

        path = expand(self.path, "path")
        if Path(path).is_dir():
            with explained(f"path: {path} cannot be read as a data set; its files are corrupt or of no known layout"):
                return datasets.load_dataset(path)
        if Path(path).exists() or path.startswith(("/", ".")) or path.count("/") > 1:  # no hub name looks like that
            state = "is not a folder" if Path(path).exists() else "does not exist"
            raise InputError(f"path: the folder {path} {state}; check the path")
        try:
            return datasets.load_dataset(path)
        except Exception as error:
            raise InputError(
                f"path: {path} is no folder here, and the Hugging Face hub does not give it; check the name, the"
                f" network and HF_HUB_OFFLINE ({one_line(error)})"
            ) from error

    def _find_image_column(self, features: Any) -> str:
        from datasets import Image as ImageFeature

        if self.image_column is not None:
            return self._checked("image_column", self.image_column, features)
        typed = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        return self._only("image_column", typed, _IMAGE_NAMES, features)

    def _find_label_column(self, features: Any, image_column: str) -> str:
        from datasets import ClassLabel

        if self.label_column is not None:
            return self._checked("label_column", self.label_column, features)
        typed = [name for name, feature in features.items() if isinstance(feature, ClassLabel) and name != image_column]
        return self._only("label_column", typed, _LABEL_NAMES, features)

    def _only(self, setting: str, typed: Sequence[str], usual: Sequence[str], features: Any) -> str:
        """The one column of the right type; among several, or where none has it, the first of the usual names."""
        if len(typed) == 1:
            return typed[0]
        for name in usual:
            if name in (typed or features):
                return name
        raise InputError(
            f"{setting}: cannot tell which column of {self.path} it is; set it to one of {_columns(features)}"
        )

    def _checked(self, setting: str, name: str, features: Any) -> str:
        if name not in features:
            raise InputError(f"{setting}: {self.path} has no column {name!r}; its columns are {_columns(features)}")
        return name

    def _partition(
        self, data: Any, name: str, image_column: str, label_column: str, classes: Sequence[Any]
    ) -> _Partition:
        from datasets import ClassLabel
        from datasets import Image as ImageFeature

        if not isinstance(data.features[image_column], ImageFeature):  # bytes without the library's own metadata
            with explained(f"image_column: {image_column!r} of {self.path} does not hold images"):
                data = data.cast_column(image_column, ImageFeature())
        values = _values(data, label_column)
        if not isinstance(data.features[label_column], ClassLabel):
            values = index_labels(values.tolist(), classes, self.path, name)
        return _Partition(data, image_column, values.astype(np.int64))


class _Partition:
    """A Hugging Face data set as :class:`RawImages`; rows come from Arrow, faster than by indexing it."""

    def __init__(self, data: Any, column: str, labels: NDArray[np.int64]) -> None:
        self.column = column
        self.feature = data.features[column]
        self.rows = data.with_format("arrow")[:][column]
        self.labels = labels

    def image(self, index: int) -> Image.Image:
        row = self.rows[index].as_py()
        if row is None:
            raise InputError(f"image_column: {self.column!r} holds no image in record {index}; remove the record")
        image = self.feature.decode_example(row)
        assert isinstance(image, Image.Image)
        return image


def _values(data: Any, column: str) -> NDArray[Any]:
    values = data.with_format("arrow")[:][column].to_pylist()
    if None in values:
        raise InputError(f"label_column: {column!r} is empty in record {values.index(None)}; remove unlabelled records")
    return np.asarray(values)


def _classes(data: Any, column: str) -> list[Any]:
    from datasets import ClassLabel

    feature = data.features[column]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    values = _values(data, column)
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise InputError(
            f"label_column: {column!r} does not hold one class per image; name another of {_columns(data.features)}"
        )
    return list(np.unique(values).tolist())


def _columns(features: Any) -> str:
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
