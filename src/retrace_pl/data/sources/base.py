"""What every source gives: partitions of labelled records, and for images those decoded on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrace_pl.data.pixels import RawImages
from retrace_pl.errors import InputError


class Partition(Protocol):
    """One partition of a source, of which only the labels are known here."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every record [n]."""


class OpenedSource(Protocol):
    """An opened source, whatever it holds."""

    @property
    def train(self) -> Partition:
        """The partition that train, public and evaluator splits come from."""

    @property
    def test(self) -> Partition | None:
        """The partition for the test split; None where it is cut from ``train``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""


class DataSource(ABC):
    """A labelled data set that can be opened."""

    @property
    @abstractmethod
    def title(self) -> str:
        """Short name of the data set for reports."""

    @abstractmethod
    def open(self) -> OpenedSource:
        """Find the data (downloading it only where the source was told to) and read its labels.

        Raises:
            InputError: If the data is missing, corrupt or not a classification data set of the right kind.
        """


@dataclass(frozen=True)
class SourceImages:
    """An opened source.

    Args:
        train: The partition that train, public and evaluator splits come from.
        test: The partition for the test split; None where the source has none and the test split is cut from ``train``.
        classes: Class names; a label is a position in it.
    """

    train: RawImages
    test: RawImages | None
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_partitions(self)


def check_partitions(opened: OpenedSource) -> None:
    """Make sure that no partition is empty and every label is the position of a class.

    Raises:
        InputError: If one is, or one is not.
    """
    for partition, found in (("train", opened.train), ("test", opened.test)):
        if found is None:
            continue
        if len(found.labels) == 0:
            raise InputError(f"the {partition} partition of the data set is empty; check the files")
        low, high = int(found.labels.min()), int(found.labels.max())
        if low < 0 or high >= len(opened.classes):
            raise InputError(
                f"the {partition} partition has label {low if low < 0 else high}, outside the {len(opened.classes)}"
                " classes of the data set; use a partition with labels"
            )


class ImageSource(DataSource):
    """A labelled image data set that can be opened without decoding it."""

    @abstractmethod
    def open(self) -> SourceImages:
        """Find the data (downloading it only where the source was told to) and read its labels.

        Raises:
            InputError: If the data is missing, corrupt or not an image classification data set.
        """


def index_labels(
    values: Sequence[Any] | NDArray[Any], classes: Sequence[Any], what: str, partition: str
) -> NDArray[np.int64]:
    """Positions of label values in the list of classes.

    Raises:
        InputError: If a value is not one of the classes.
    """
    positions = {value: index for index, value in enumerate(classes)}
    try:
        return np.fromiter((positions[value] for value in values), dtype=np.int64, count=len(values))
    except KeyError as error:
        raise InputError(
            f"{what}: the {partition} partition has a class {error.args[0]!r} that the train partition does not have"
        ) from None
