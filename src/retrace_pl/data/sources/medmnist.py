"""MedMNIST and other data sets in its ``.npz`` layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace_pl.data.paths import existing_file, explained
from retrace_pl.data.pixels import ArrayImages, join
from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.errors import InputError


class MedMNISTSource(ImageSource):
    """A ``.npz`` file in MedMNIST layout: ``train_images``, ``train_labels``, the same for ``val`` and ``test``.

    Images are uint8 [n, H, W] or [n, H, W, 3], labels integers [n] or [n, 1]. The ``val`` images, where there are any,
    join the train partition, which the audit splits anew.

    Args:
        path: The file; ``~`` and environment variables are expanded.
        class_names: Names of the classes in the order of their labels; None for their numbers.
    """

    def __init__(self, path: str, class_names: list[str] | None = None) -> None:
        self.path = path
        self.class_names = class_names

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return self.path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".npz")

    def open(self) -> SourceImages:
        """Read the arrays.

        Raises:
            InputError: If the file is missing, corrupt or of another layout.
        """
        file = existing_file(self.path, "path")
        damaged = f"path: {file} cannot be read as .npz; the file is corrupt"
        with explained(damaged), file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        parts = {name: self._partition(arrays, name) for name in ("train", "val", "test")}
        train, val, test = parts["train"], parts["val"], parts["test"]
        if train is None:
            raise InputError(
                f"path: {file} has no train_images and train_labels; it has {', '.join(sorted(arrays)) or 'nothing'}"
            )
        if val is not None:
            train = join([train, val], str(file))
        return SourceImages(train=train, test=test, classes=self._classes([train, test]))

    def _partition(self, arrays: dict[str, NDArray[Any]], name: str) -> ArrayImages | None:
        images, labels = arrays.get(f"{name}_images"), arrays.get(f"{name}_labels")
        if images is None or labels is None or len(images) == 0:
            return None
        what = f"path: {self.path}: {name}"
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise InputError(f"{what}_labels must hold one whole number per image, not {labels.dtype} {labels.shape}")
        return ArrayImages(images, labels, what)

    def _classes(self, parts: list[ArrayImages | None]) -> tuple[str, ...]:
        count = 1 + max(int(part.labels.max()) for part in parts if part is not None)
        if self.class_names is None:
            return tuple(str(index) for index in range(count))
        if len(self.class_names) < count:
            raise InputError(f"class_names: {len(self.class_names)} names for {count} classes; name every class")
        return tuple(self.class_names)
