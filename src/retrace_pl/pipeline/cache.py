"""Artefacts that several audits share: each is made once, found by what it depends on, and whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retrace_pl.errors import InputError, RunError, unwritable
from retrace_pl.files import PART
from retrace_pl.pipeline.run_folder import fingerprint
from retrace_pl.report.progress import counted

MANIFEST = "manifest.json"
BLOCK = 1 << 20
POLL_SECONDS = 0.2

Files = Mapping[str, Path]
"""Names of an entry's files -> where they lie."""


@dataclass(frozen=True)
class Artefact:
    """Something that audits can share, known by everything its content depends on.

    Args:
        name: what it is, for people: the folder of its entries and the word in messages.
        inputs: plain values (numbers, texts, lists, dictionaries); two artefacts with the same inputs are the same.
    """

    name: str
    inputs: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Hash of the inputs."""
        return fingerprint(self.inputs)


@dataclass(frozen=True)
class Job:
    """How one artefact is had.

    Args:
        cache: where it is kept.
        artefact: what is wanted.
        make: does the work and returns the files to keep.
        take: uses the files of an earlier `make` in its place; they may belong to the cache and must not be changed.
        announce: is told in a line of text what was taken or is waited for.
    """

    cache: ArtefactCache
    artefact: Artefact
    make: Callable[[], Files]
    take: Callable[[Files], None]
    announce: Callable[[str], object] = lambda text: None

    def settle(self, *, wait: bool = True) -> bool:
        """Takes or makes the artefact.

        Args:
            wait: whether to wait for another process that is making it.

        Returns:
            Whether it is settled; False only where another process is busy with it and `wait` is false.

        Raises:
            RunError: the cache cannot be read or written.
        """
        if self.taken():
            return True
        with self.cache.locked(self.artefact, wait=wait) as mine:
            if not mine:
                return False
            if not self.taken():  # it may have been made in the meantime
                self.cache.store(self.artefact, self.make())
        return True

    def taken(self) -> bool:
        """Uses what is there already, and says whether there was something."""
        files = self.cache.find(self.artefact)
        if files is None:
            return False
        self.take(files)
        self.announce(f"{self.artefact.name}: {self.cache.taken}")
        return True


def complete(jobs: Sequence[Job]) -> None:
    """Gets every artefact, each from its cache or by making it.

    What another process is making at the moment is put off until everything else is there.

    Args:
        jobs: the artefacts wanted; they may be made in any order.

    Raises:
        RunError: a cache cannot be read or written.
    """
    left, count = list(jobs), counted(len(jobs))
    while left:
        busy = []
        for job in left:
            if job.settle(wait=False):
                count()
            else:
                busy.append(job)
        if len(busy) == len(left):
            first = busy.pop(0)
            first.announce(f"{first.artefact.name}: waiting for another process that makes it")
            first.settle()
            count()
        left = busy


class ArtefactCache:
    """A folder of artefacts that any number of audits and processes may use at the same time.

    An entry is a folder `NAME/KEY` with the artefact's files and `manifest.json`: the inputs that the key is made of,
    and size and SHA-256 of every file. Entries appear by renaming a finished folder; one that does not match its
    manifest is made again. Of several processes that want the same artefact one makes it while the others wait; the
    operating system releases the lock of a process that dies. Nothing read from here is ever executed. The folder, or
    any entry, may be deleted while no audit is running.

    Args:
        root: the folder; made where it does not exist.
        option: the command-line option that named it, for messages.
        taken: what is said of an artefact that comes from here.

    Raises:
        InputError: the folder cannot be made or written.
    """

    def __init__(self, root: str | Path, option: str = "--cache", taken: str = "taken from the cache") -> None:
        self.root = Path(root)
        self.option = option
        self.taken = taken
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"{option} {self.root} is a file; give a folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{option} {self.root} cannot be created: {error.strerror}") from error
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise InputError(f"{option} {self.root} is not writable; choose another folder")

    def find(self, artefact: Artefact) -> dict[str, Path] | None:
        """The files of a whole entry, or None where there is none or it is damaged."""
        folder = self._folder(artefact)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["inputs"] != _plain(artefact.inputs):
                return None
            recorded: dict[str, list[Any]] = manifest["files"]
            files = {name: folder / name for name in recorded if _is_plain_name(name)}
            whole = len(files) == len(recorded) and all(
                _is_regular(path, recorded[name][0]) and file_hash(path) == recorded[name][1]
                for name, path in files.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
        return files if whole else None

    def store(self, artefact: Artefact, files: Files) -> None:
        """Adds an entry, in place of a damaged one; the caller holds its lock. The files must not change afterwards.

        Args:
            artefact: what the files are.
            files: name in the entry -> file, which is linked where possible and copied otherwise.

        Raises:
            RunError: the cache cannot be written.
        """
        folder = self._folder(artefact)
        new = folder.with_name(f".{artefact.key}.{uuid.uuid4().hex}")
        try:
            for abandoned in folder.parent.glob(f".{artefact.key}.*"):
                shutil.rmtree(abandoned)  # its producer died, or it would hold the lock
            new.mkdir(parents=True)
            recorded = {}
            for name, path in files.items():
                _link_or_copy(path, new / name)
                recorded[name] = [(new / name).stat().st_size, file_hash(new / name)]
            manifest = {"artefact": artefact.name, "inputs": _plain(artefact.inputs), "files": recorded}
            (new / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
        except OSError as error:
            raise self._unusable("written", error) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self, artefact: Artefact, *, wait: bool = True) -> Iterator[bool]:
        """Holds the lock of an artefact inside the block and yields True; yields False where another process holds it.

        Args:
            artefact: whose lock.
            wait: whether to wait until it is free.

        Raises:
            RunError: the cache cannot be written, or its file system has no locks.
        """
        folder = self._folder(artefact)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_name(f"{artefact.key}.lock"))
            lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL_SECONDS)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError) as error:
            raise self._unusable("locked", error) from error
        try:
            yield True
        finally:
            lock.release()

    def _folder(self, artefact: Artefact) -> Path:
        return self.root / re.sub(r"[^\w.-]", "_", artefact.name) / artefact.key

    def _unusable(self, what: str, error: Exception) -> RunError:
        reason = getattr(error, "strerror", None) or str(error)
        return RunError(f"{self.option} {self.root} cannot be {what}: {reason}; free some space or choose another")


def place_file(source: Path, target: Path) -> None:
    """Puts a file at a second place, atomically: as a hard link where the file system allows it, else as a copy.

    A link is safe because every file of a run is replaced as a whole, never written in place.

    Args:
        source: an existing file that is not changed afterwards.
        target: where it is wanted; a file there is replaced.

    Raises:
        RunError: the target cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{PART}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(source, temporary)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # renaming one link of a file to another leaves both


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _plain(inputs: Mapping[str, Any]) -> Any:
    """The inputs as they come back from JSON."""
    return json.loads(json.dumps(inputs, sort_keys=True, default=str))


def _is_plain_name(name: str) -> bool:
    return Path(name).name == name


def _is_regular(path: Path, size: int) -> bool:
    found = path.lstat()  # a link could lead out of the cache
    return stat.S_ISREG(found.st_mode) and found.st_size == size
