"""The files of one run: atomic writes, and markers that let a finished stage be skipped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.files import read_json, read_tensors, remove_parts, write_json

Built = TypeVar("Built", bound=nn.Module)


def fingerprint(value: Any) -> str:
    """Hash of plain settings (dicts, lists, numbers, strings) that does not depend on key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_weights(module: nn.Module, path: Path) -> nn.Module:
    """Loads a module's weights from a safetensors file; never executes code from it.

    Raises:
        InputError: the file holds the weights of another architecture.
        RunError: the file is missing or damaged.
    """
    try:
        module.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise InputError(
            f"{path} holds the weights of another architecture than {type(module).__name__}; "
            "use the settings it was trained with, or delete it to train again"
        ) from error
    return module.eval()


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run and the markers of its finished stages.

    Args:
        root: the folder.
    """

    root: Path

    def __post_init__(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"--output {self.root} is a file; give a folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--output {self.root} cannot be created: {error.strerror}") from error
        if not os.access(self.root, os.W_OK):
            raise InputError(f"--output {self.root} is not writable; choose another folder")

    def path(self, name: str) -> Path:
        """Path of a file of this run."""
        return self.root / name

    def _marker(self, stage: str) -> Path:
        return self.root / "stages" / f"{stage}.json"

    def is_done(self, stage: str, key: str) -> bool:
        """Whether `stage` finished with the settings behind `key` and all its outputs are still there."""
        marker = self._marker(stage)
        if not marker.is_file():
            return False
        with contextlib.suppress(RunError):
            record = read_json(marker)
            outputs = record.get("outputs", {})
            return record.get("key") == key and all(
                self.path(name).is_file() and self.path(name).stat().st_size == size for name, size in outputs.items()
            )
        return False

    def begin(self, stage: str, later: tuple[str, ...]) -> None:
        """Forgets the marker of `stage`, and markers and outputs of the `later` stages that it makes outdated.

        What an attempt that was killed had begun to write goes too.
        """
        remove_parts(self.root)
        for name in (stage, *later):
            marker = self._marker(name)
            if name != stage and marker.is_file():
                with contextlib.suppress(RunError):
                    for output in read_json(marker).get("outputs", {}):
                        self.path(output).unlink(missing_ok=True)
            marker.unlink(missing_ok=True)

    def finish(self, stage: str, key: str, outputs: list[str], seconds: float) -> None:
        """Records a finished stage; its outputs must exist."""
        sizes = {name: self.path(name).stat().st_size for name in outputs}
        write_json(self._marker(stage), {"key": key, "outputs": sizes, "seconds": round(seconds, 3)})

    def seconds(self) -> dict[str, float]:
        """Seconds each finished stage took."""
        return {
            marker.stem: float(read_json(marker)["seconds"]) for marker in sorted((self.root / "stages").glob("*.json"))
        }


def seed_for(seed: int, *purpose: object) -> int:
    """Derives an independent 31-bit seed for a purpose from the audit's one seed."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


def seeded_module(build: Callable[[], Built], seed: int) -> Built:
    """Builds a module whose random initial weights depend on `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()
