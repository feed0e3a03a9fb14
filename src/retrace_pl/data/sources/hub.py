"""Partitions and columns of Hugging Face data sets, from the hub or from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrace_pl.data.paths import expand, explained, one_line
from retrace_pl.errors import InputError

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target", "category")
_TEST_SPLITS = ("test", "validation", "valid", "val")
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
    ".txt": ("text", {}),
}
"""How a name ends -> reader of such files in the `datasets` library, and its settings."""


def open_partitions(path: str) -> tuple[Any, Any]:
    """The train partition, and the first of ``test``, ``validation``, ``valid`` and ``val`` that exists, or None.

    Args:
        path: Name on the hub, a folder, or one CSV, TSV, JSON, JSON Lines, parquet or text file; ``~`` and environment
            variables are expanded.

    Raises:
        InputError: If the data set cannot be found, reached or read, or has no train partition.
    """
    partitions = _load(path)
    if "train" not in partitions:
        raise InputError(f"path: {path} has no train partition; it has {', '.join(map(str, partitions))}")
    return partitions["train"], next((partitions[name] for name in _TEST_SPLITS if name in partitions), None)


def _load(path: str) -> Any:
    import datasets

    path = expand(path, "path")
    if Path(path).is_dir():
        with explained(f"path: {path} cannot be read as a data set; its files are corrupt or of no known layout"):
            return datasets.load_dataset(path)
    file = FILES.get(Path(path).suffix.lower()) if Path(path).is_file() else None
    if file is not None:
        with explained(f"path: {path} cannot be read as a table of records; check that its columns are one type each"):
            return datasets.load_dataset(file[0], data_files={"train": path}, **file[1])
    if Path(path).exists() or path.startswith(("/", ".")) or path.count("/") > 1:  # no hub name looks like that
        state = f"is neither a folder nor a file with {', '.join(FILES)}" if Path(path).exists() else "does not exist"
        raise InputError(f"path: {path} {state}; check the path")
    try:
        return datasets.load_dataset(path)
    except Exception as error:
        raise InputError(
            f"path: {path} is no folder here, and the Hugging Face hub does not give it; check the name, the"
            f" network and HF_HUB_OFFLINE ({one_line(error)})"
        ) from error


def only_column(setting: str, typed: Sequence[str], usual: Sequence[str], features: Any, path: str) -> str:
    """The one column of the right type; among several, or where none has it, the first of the usual names.

    Args:
        setting: Setting that would name it, for messages.
        typed: Columns of the right type.
        usual: Usual names of such a column.
        features: All columns.
        path: Name of the data set, for messages.

    Raises:
        InputError: If it cannot be told.
    """
    if len(typed) == 1:
        return typed[0]
    for name in usual:
        if name in (typed or features):
            return name
    raise InputError(f"{setting}: cannot tell which column of {path} it is; set it to one of {columns(features)}")


def checked_column(setting: str, name: str, features: Any, path: str) -> str:
    """A column that the user named.

    Raises:
        InputError: If there is none of this name.
    """
    if name not in features:
        raise InputError(f"{setting}: {path} has no column {name!r}; its columns are {columns(features)}")
    return name


def label_column(name: str | None, features: Any, path: str, others: Sequence[str]) -> str:
    """The column with the classes: the one named, else the only ClassLabel column, else one of the usual names.

    Args:
        name: Name that the user gave.
        features: All columns.
        path: Name of the data set, for messages.
        others: Columns that it is not.

    Raises:
        InputError: If it does not exist or cannot be told.
    """
    from datasets import ClassLabel

    if name is not None:
        return checked_column("label_column", name, features, path)
    typed = [name for name, feature in features.items() if isinstance(feature, ClassLabel) and name not in others]
    return only_column("label_column", typed, LABEL_NAMES, features, path)


def label_values(data: Any, column: str) -> NDArray[Any]:
    """The values of a label column.

    Raises:
        InputError: If one is missing.
    """
    values = data.with_format("arrow")[:][column].to_pylist()
    if None in values:
        raise InputError(f"label_column: {column!r} is empty in record {values.index(None)}; remove unlabelled records")
    return np.asarray(values)


def columns(features: Any) -> str:
    """The columns of a data set with their types, for messages."""
    return ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
