"""What a black box has answered so far, kept on disk so that nothing is asked, or paid for, twice."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from retrace_pl.errors import InputError, RunError, unwritable

__all__ = ["KEY_BYTES", "AnswerStore", "input_keys"]

Floats = NDArray[np.float32]

_MAGIC = b"retrace answers 1\n"
KEY_BYTES = 16
_HEAD, _CHECK = struct.Struct("<cI"), struct.Struct("<I")
_ANSWER, _ASKED = b"A", b"Q"


def input_keys(inputs: Floats) -> list[bytes]:
    """A 128-bit hash of every input [n, ...], of its shape and its float32 bytes."""
    shape = repr(inputs.shape[1:]).encode()
    return [
        hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES, key=shape).digest()
        for row in np.ascontiguousarray(inputs)
    ]


class AnswerStore:
    """An append-only file of answers and of how often the black box was asked.

    Every record carries a checksum. A record that an interruption or a full disk cut off is dropped when the file is
    opened again; everything before it stays. How many inputs are about to be sent is written before they are sent, so
    that a killed run never forgets a question that the black box may have counted.

    Args:
        path: The file; made where it does not exist.

    Raises:
        InputError: The file is none of this kind, or another run is using it.
        RunError: The file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = 0
        self._rows: dict[bytes, bytes] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path.with_name(f"{path.name}.lock"))
            self._lock.acquire(timeout=0)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except Timeout as error:
            raise InputError(f"--output: another run is using {path}; wait for it or choose another folder") from error
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def classes(self) -> int | None:
        """Number of classes of the answers; None before the first."""
        return next((len(row) // 4 for row in self._rows.values()), None)

    def close(self) -> None:
        """Closes the file and lets other runs use it; safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._lock.release()

    def find(self, keys: list[bytes]) -> list[Floats | None]:
        """The probabilities [K] that are known for each key, None where it has not been answered."""
        found = [self._rows.get(key) for key in keys]
        return [None if row is None else np.frombuffer(row, dtype="<f4") for row in found]

    def count(self, inputs: int) -> None:
        """Notes that so many inputs are about to be sent.

        Raises:
            RunError: The file cannot be written; nothing may be sent then.
        """
        self._append([_record(_ASKED, _CHECK.pack(inputs))])
        self.asked += inputs

    def add(self, keys: list[bytes], answers: Floats) -> None:
        """Keeps answers [n, K].

        Raises:
            RunError: The file cannot be written.
        """
        rows = {key: row.tobytes() for key, row in zip(keys, answers.astype("<f4"), strict=True)}
        self._append([_record(_ANSWER, key + row) for key, row in rows.items()])
        self._rows.update(rows)

    def _append(self, records: list[bytes]) -> None:
        content = b"".join(records)
        try:
            written = os.write(self._file, content)
            while written < len(content):
                written += os.write(self._file, content[written:])
        except OSError as error:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise self._unwritable(error) from error
        self._size += len(content)

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
            if not content.startswith(_MAGIC) and not _MAGIC.startswith(content):
                raise InputError(f"--output: {self.path} is no file of answers; move it away")
            self._size = 0
            if len(content) < len(_MAGIC):
                os.ftruncate(self._file, 0)
                self._append([_MAGIC])
                return
            self._size = self._parse(content)
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
        except OSError as error:
            raise self._unwritable(error) from error

    def _parse(self, content: bytes) -> int:
        """Takes over every whole record and returns where the last one ends."""
        position = len(_MAGIC)
        while position + _HEAD.size + _CHECK.size <= len(content):
            kind, size = _HEAD.unpack_from(content, position)
            end = position + _HEAD.size + size
            if end + _CHECK.size > len(content):
                break
            if _CHECK.unpack_from(content, end)[0] != zlib.crc32(content[position:end]):
                break
            body = content[position + _HEAD.size : end]
            if kind == _ASKED:
                self.asked += _CHECK.unpack(body)[0]
            elif kind == _ANSWER:
                self._rows[body[:KEY_BYTES]] = body[KEY_BYTES:]
            position = end + _CHECK.size
        return position

    def _unwritable(self, error: OSError) -> RunError:
        return unwritable(self.path, error)


def _record(kind: bytes, body: bytes) -> bytes:
    content = _HEAD.pack(kind, len(body)) + body
    return content + _CHECK.pack(zlib.crc32(content))
