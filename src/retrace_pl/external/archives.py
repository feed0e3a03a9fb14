"""What kind of file a model is, and zip archives read without executing anything in them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Literal

from retrace_pl.errors import InputError

__all__ = ["Archive", "FileKind", "file_kind", "refuse_pickle"]

FileKind = Literal["torch.export", "TorchScript", "safetensors", "pickle"]

_TEXT_LIMIT = 1 << 28  # bytes of a compressed record; a model's program is far smaller, a zip bomb far larger
_SAFETENSORS_HEADER = 100_000_000  # the format's own limit


def file_kind(path: Path, option: str) -> FileKind:
    """Looks at what is in a file, not at its name, and decides how it is to be read.

    Args:
        path: The file.
        option: The command-line option that named it, for messages.

    Raises:
        InputError: It is none of the formats, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        names = _names(path) if head[:2] == b"PK" else []
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{option}: {path} cannot be read: {error}") from error
    if names:
        inner = {name.partition("/")[2] for name in names}
        if "archive_format" in inner or any(name.startswith("models/") for name in inner):
            return "torch.export"
        if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
            return "TorchScript"
        if "data.pkl" in inner:
            return "pickle"
    elif len(head) == 9 and int.from_bytes(head[:8], "little") <= _SAFETENSORS_HEADER and head[8:] == b"{":
        return "safetensors"
    elif head[:1] == b"\x80":  # the opcode every binary pickle begins with
        return "pickle"
    raise InputError(
        f"{option}: {path} is no torch.export archive (.pt2), TorchScript archive, safetensors file or Hugging Face "
        "folder"
    )


def refuse_pickle(path: Path, option: str) -> InputError:
    """The error for a pickled checkpoint, which would run code of whoever made it."""
    return InputError(
        f"{option}: {path} is a pickled checkpoint, and loading a pickle can run any code; where you trust it, save "
        "the weights with safetensors.torch.save_file(model.state_dict(), 'model.safetensors') and give that file with "
        "--model-class"
    )


class Archive:
    """One of torch's zip archives, whose records are read one by one and never executed.

    Args:
        path: The file.
        option: The command-line option that named it, for messages.

    Raises:
        InputError: The archive is damaged, or two records have the same name.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self.option = option
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{option}: {path} cannot be read: {error}") from error
        entries = [entry for entry in self._archive.infolist() if not entry.is_dir()]
        self._records = {entry.filename.partition("/")[2]: entry for entry in entries}
        self.root = entries[0].filename.partition("/")[0] if entries else ""
        roots = {entry.filename.partition("/")[0] for entry in entries}
        if len(self._records) != len(entries) or len(roots) != 1:
            self.close()
            raise InputError(f"{option}: {path} is damaged: its records do not lie once each under one folder")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    @property
    def names(self) -> list[str]:
        """Names of the records inside the archive's root folder."""
        return list(self._records)

    def read(self, name: str) -> bytes:
        """Content of one record.

        Raises:
            InputError: There is no such record, it is damaged, or unpacks to far more than it can sensibly be.
        """
        entry = self._records.get(name)
        if entry is None:
            raise InputError(f"{self.option}: {self.path} is damaged: {name} is missing")
        if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _TEXT_LIMIT:
            raise InputError(f"{self.option}: {self.path} is damaged: {name} unpacks to {entry.file_size} bytes")
        try:
            return self._archive.read(entry)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            raise InputError(f"{self.option}: {self.path} is damaged: {error}") from error


def _names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
