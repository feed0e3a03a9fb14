"""Files that are whole or absent: atomic writes, and reads that never execute what they find."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from retrace_pl.errors import RunError, unwritable

__all__ = [
    "PART",
    "atomic_path",
    "finite",
    "read_json",
    "read_tensors",
    "remove_parts",
    "write_json",
    "write_tensors",
]

PART = ".part"
"""How the name of a file ends that is still being written; it begins with a dot."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path` that replaces it only when the block succeeds.

    A reader therefore sees the old file or the whole new one, also after a kill or on a full disk.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that has failed may refuse this too
            temporary.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Removes what writers that were killed left behind in a folder and below; nothing ever reads it.

    Args:
        folder: a folder in which nobody is writing at the moment.
    """
    for part in folder.rglob(f".*{PART}"):
        with contextlib.suppress(OSError):
            part.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinities become null because JSON has no word for them."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2) + "\n", encoding="utf-8")


def finite(value: Any) -> Any:
    """The same plain values with None for NaN and infinities, and keys as text: what strict JSON can hold."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file of the run.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: run the earlier stages of this audit first") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it and run the stage again") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Writes named tensors as safetensors, atomically; `metadata` values are stored as JSON text."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    with atomic_path(path) as temporary:
        try:
            save_file(contiguous, str(temporary), metadata=header or None)  # {} and no tensor: not readable again
        except SafetensorError as error:
            raise RunError(f"cannot write {path}: {error}; free some space or choose another --output") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file of the run onto the CPU.

    Raises:
        RunError: the file is missing, truncated or no safetensors file.
    """
    try:
        path.open("rb").close()  # safetensors says of a file without permission that there is none
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing: run the earlier stages of this audit first") from error
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it and run the stage again") from error
