"""Image data sets of the Hugging Face ``datasets`` library, from the hub or from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrace_pl.data.paths import explained
from retrace_pl.data.sources.base import ImageSource, SourceImages, index_labels
from retrace_pl.data.sources.hub import (
    checked_column,
    columns,
    label_column,
    label_values,
    only_column,
    open_partitions,
)
from retrace_pl.errors import InputError

_IMAGE_NAMES = ("image", "img", "images", "picture", "pixels")


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
        train, test = open_partitions(self.path)
        image_column = self._find_image_column(train.features)
        labels = label_column(self.label_column, train.features, self.path, [image_column])

        classes = _classes(train, labels)
        opened = [
            None if part is None else self._partition(part, name, image_column, labels, classes)
            for name, part in (("train", train), ("test", test))
        ]
        assert opened[0] is not None
        return SourceImages(train=opened[0], test=opened[1], classes=tuple(map(str, classes)))

    def _find_image_column(self, features: Any) -> str:
        from datasets import Image as ImageFeature

        if self.image_column is not None:
            return checked_column("image_column", self.image_column, features, self.path)
        typed = [name for name, feature in features.items() if isinstance(feature, ImageFeature)]
        return only_column("image_column", typed, _IMAGE_NAMES, features, self.path)

    def _partition(self, data: Any, name: str, image_column: str, labels: str, classes: Sequence[Any]) -> _Partition:
        from datasets import ClassLabel
        from datasets import Image as ImageFeature

        if not isinstance(data.features[image_column], ImageFeature):  # bytes without the library's own metadata
            with explained(f"image_column: {image_column!r} of {self.path} does not hold images"):
                data = data.cast_column(image_column, ImageFeature())
        values = label_values(data, labels)
        if not isinstance(data.features[labels], ClassLabel):
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


def _classes(data: Any, column: str) -> list[Any]:
    from datasets import ClassLabel

    feature = data.features[column]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    values = label_values(data, column)
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise InputError(
            f"label_column: {column!r} does not hold one class per image; name another of {columns(data.features)}"
        )
    return list(np.unique(values).tolist())
