"""Checkpoints to resume from: whole or absent, never executed, and of the training that is to go on."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from retrace_pl.errors import RunError
from retrace_pl.files import atomic_path
from retrace_pl.pipeline.run_folder import RunFolder

__all__ = ["WholeCheckpointIO", "check_readable", "discard_checkpoints", "last_checkpoint"]

PARTS = frozenset({"state_dict", "epoch", "global_step", "loops", "optimizer_states"})
"""What Lightning needs of a checkpoint to resume from."""

REMEDY = "delete it and run again to train from the start"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning's own writes to the system's folder for temporary files and moves it from there: onto another file system
    that is a copy, and a kill in the middle of it leaves half a checkpoint where the last good one was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: what Lightning wants to keep.
            path: where.
            storage_options: not used.

        Raises:
            RunError: the folder cannot be written, or the disk is full.
        """
        with atomic_path(Path(path)) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # the archive cannot be closed because it could not be written
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise


def last_checkpoint(run: RunFolder, name: str, key: str) -> Path:
    """Where the checkpoint of a training lies; those of the same name with another key are removed.

    Args:
        run: the run folder.
        name: name of the training.
        key: hash of everything its result depends on.
    """
    folder = run.root / "checkpoints" / f"{name}-{key}"
    for outdated in folder.parent.glob(f"{name}-*"):
        if outdated != folder:
            shutil.rmtree(outdated, ignore_errors=True)
    return folder / "last.ckpt"


def check_readable(checkpoint: Path) -> None:
    """Refuses a checkpoint that is damaged or that is none; nothing in it is executed.

    Args:
        checkpoint: the file; it may be missing.

    Raises:
        RunError: training cannot go on from it.
    """
    if not checkpoint.is_file():
        return
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(f"{checkpoint} cannot be read; {REMEDY}") from error
    if not isinstance(content, dict) or not content.keys() >= PARTS:
        raise RunError(f"{checkpoint} is no checkpoint of a training; {REMEDY}")


def discard_checkpoints(run: RunFolder, name: str) -> None:
    """Removes the resume checkpoints of a finished training; its product is stored as safetensors."""
    folder: Path = run.root / "checkpoints"
    for used in folder.glob(f"{name}-*"):
        shutil.rmtree(used, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
