"""Parts of the packaged configurations: data sets by their names, and architectures."""

from __future__ import annotations

from typing import Any

from retrace_pl.errors import InputError
from retrace_pl.external.dotted import import_named
from retrace_pl.pipeline.parsing import config_folders, read_mapping

__all__ = ["packaged_model", "registered_source"]


def packaged_model(name: str) -> dict[str, Any]:
    """Arguments of an architecture in the packaged `model/` configurations."""
    file = next(path for folder in config_folders() if (path := folder / "model" / f"{name}.yaml").is_file())
    found: dict[str, Any] = read_mapping(file, "--generator.model")["init_args"]
    return found


def registered_source(name: str, option: str, kind: Any, nothing: str, noun: str) -> tuple[Any, str]:
    """The source of a registered data set, and which of its partitions is meant.

    Args:
        name: Such as ``digits``, ``ag_news`` or ``fashion_mnist:test``.
        option: The command-line option that named it, for messages.
        kind: The class whose subclass the source has to be.
        nothing: What else the name is not, for messages.
        noun: What such a source holds, for messages.

    Raises:
        InputError: There is no such data set, or it holds something else.
    """
    stem, _, partition = name.partition(":")
    files = {file.stem: file for folder in reversed(config_folders()) for file in (folder / "data").glob("*.yaml")}
    if stem not in files or partition not in ("", "train", "test"):
        known = ", ".join(sorted(files))
        raise InputError(
            f"{option}: {name} is {nothing} and no registered data set; registered are: {known}, each also as NAME:test"
        )
    part = read_mapping(files[stem], option)["init_args"]["source"]
    found = import_named(part["class_path"], option)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise InputError(f"{option}: {stem} holds no {noun}; name a data set of {noun}")
    return found(**part.get("init_args", {})), partition or "train"
