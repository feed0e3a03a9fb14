"""Labelled text data sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace_pl.data.sources.base import DataSource, check_partitions, index_labels
from retrace_pl.data.sources.hub import (
    LABEL_NAMES,
    checked_column,
    columns,
    label_column,
    label_values,
    only_column,
    open_partitions,
)
from retrace_pl.errors import InputError

_TEXT_NAMES = ("text", "sentence", "content", "review", "document", "article")


@dataclass(frozen=True)
class RawTexts:
    """One partition of a source.

    Args:
        texts: The texts.
        labels: Class of every text, int64 [n].
    """

    texts: Sequence[str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class SourceTexts:
    """An opened source.

    Args:
        train: The partition that train, public and evaluator splits come from.
        test: The partition for the test split; None where the source has none and the test split is cut from ``train``.
        classes: Class names; a label is a position in it.

    Raises:
        InputError: If a partition is empty, or a label is none of the classes.
    """

    train: RawTexts
    test: RawTexts | None
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_partitions(self)


class TextSource(DataSource):
    """A labelled text data set."""

    @abstractmethod
    def open(self) -> SourceTexts:
        """Find the data (downloading it only where the source was told to) and read texts and labels.

        Raises:
            InputError: If the data is missing, corrupt or not a text classification data set.
        """

    def read(self, partition: str = "train") -> tuple[RawTexts, tuple[str, ...] | None]:
        """One partition, and the names of its classes, or None where the texts have none.

        Args:
            partition: ``train`` or ``test``.

        Raises:
            InputError: As `open`; or there is no such partition.
        """
        opened = self.open()
        found = opened.train if partition == "train" else opened.test
        if found is None:
            raise InputError(f"{self.title} has no {partition} partition; name the data set alone")
        return found, opened.classes


class HuggingFaceTextSource(TextSource):
    """A Hugging Face text data set: a hub name, or a local folder of parquet, JSON or CSV files, or one such file.

    Partitions: ``train``, and the first of ``test``, ``validation``, ``valid`` and ``val`` that exists. Labels are
    those of a ClassLabel column, or whole numbers, whose classes are the distinct values of the train partition.

    Args:
        path: Name on the hub (``owner/name``), a folder or a file; ``~`` and environment variables are expanded.
        text_column: Column with the texts; several are joined by a space, in this order. None: the only column of
            strings, or one of the usual names.
        label_column: Column with the classes. None: the only ClassLabel column, or one of the usual names.
        class_names: Names of the classes in the order of their labels. None: those of the ClassLabel, or the numbers.
    """

    def __init__(
        self,
        path: str,
        text_column: str | list[str] | None = None,
        label_column: str | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.path = path
        self.text_column = text_column
        self.label_column = label_column
        self.class_names = class_names

    @property
    def title(self) -> str:
        """Short name of the data set for reports."""
        return Path(self.path).name

    def open(self) -> SourceTexts:
        """Read both partitions.

        Raises:
            InputError: If the data set cannot be found, reached or read, its columns cannot be told apart, hold no
                texts or no whole numbers, or ``class_names`` are not as many as the classes.
        """
        train, test = open_partitions(self.path)
        texts = self._text_columns(train.features)
        labels = label_column(self.label_column, train.features, self.path, texts)
        values, names = self._classes(train, labels)
        return SourceTexts(
            train=self._partition(train, "train", texts, labels, values),
            test=None if test is None else self._partition(test, "test", texts, labels, values),
            classes=self._named(names),
        )

    def read(self, partition: str = "train") -> tuple[RawTexts, tuple[str, ...] | None]:
        """One partition, with labels where there is a column of them.

        Raises:
            InputError: As `open`; or there is no such partition.
        """
        train, test = open_partitions(self.path)
        data = train if partition == "train" else test
        if data is None:
            raise InputError(f"{self.title} has no {partition} partition; name the data set alone")
        texts = self._text_columns(train.features)
        if not self._labelled(train.features, texts):
            joined = _joined(data, texts)
            return RawTexts(joined, np.zeros(len(joined), dtype=np.int64)), None
        labels = label_column(self.label_column, train.features, self.path, texts)
        values, names = self._classes(train, labels)
        return self._partition(data, partition, texts, labels, values), self._named(names)

    def _labelled(self, features: Any, texts: list[str]) -> bool:
        from datasets import ClassLabel

        others = [name for name in features if name not in texts]
        named = self.label_column is not None or any(name in LABEL_NAMES for name in others)
        return named or any(isinstance(features[name], ClassLabel) for name in others)

    def _text_columns(self, features: Any) -> list[str]:
        strings = [name for name, feature in features.items() if _holds_strings(feature)]
        if self.text_column is None:
            return [only_column("text_column", strings, _TEXT_NAMES, features, self.path)]
        wanted = [self.text_column] if isinstance(self.text_column, str) else self.text_column
        if not wanted:
            raise InputError(f"text_column: the list is empty; name one of {columns(features)}")
        for name in wanted:
            checked_column("text_column", name, features, self.path)
            if name not in strings:
                raise InputError(f"text_column: {name!r} of {self.path} holds no texts; name one of {strings}")
        return wanted

    def _classes(self, train: Any, column: str) -> tuple[list[int], list[str]]:
        """Label values in ascending order, and the names of the classes."""
        from datasets import ClassLabel

        feature = train.features[column]
        if isinstance(feature, ClassLabel):
            return list(range(len(feature.names))), list(feature.names)
        kind = str(getattr(feature, "dtype", type(feature).__name__))
        if not kind.startswith(("int", "uint")):
            raise InputError(
                f"label_column: {column!r} of {self.path} holds {kind}, not whole numbers; name a ClassLabel or integer"
                " column, or number the classes"
            )
        values = np.unique(label_values(train, column)).tolist()
        return values, [str(value) for value in values]

    def _named(self, names: list[str]) -> tuple[str, ...]:
        if self.class_names is None:
            return tuple(names)
        if len(self.class_names) != len(names):
            raise InputError(
                f"class_names: {len(self.class_names)} names for the {len(names)} classes of {self.path}; name each"
            )
        return tuple(self.class_names)

    def _partition(self, data: Any, name: str, texts: list[str], labels: str, values: list[int]) -> RawTexts:
        if labels not in data.features:
            raise InputError(f"label_column: the {name} partition of {self.path} has no column {labels!r}")
        missing = [column for column in texts if column not in data.features]
        if missing:
            raise InputError(f"text_column: the {name} partition of {self.path} has no column {missing[0]!r}")
        joined = _joined(data, texts)
        found = label_values(data, labels).tolist()
        known = [value for value in found if value != -1]  # how the hub marks what has no label
        if len(known) < len(found):
            raise InputError(f"label_column: the {name} partition of {self.path} holds records without a label (-1)")
        return RawTexts(joined, index_labels(found, values, self.path, name))


def _joined(data: Any, columns: list[str]) -> list[str]:
    """The texts of several columns, joined by a space; what is missing counts as empty."""
    table = data.with_format("arrow")[:]
    rows = zip(*(table[column].to_pylist() for column in columns), strict=True)
    return [" ".join(part for part in row if part) for row in rows]


def _holds_strings(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")) in ("string", "large_string")
