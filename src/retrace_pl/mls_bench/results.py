"""What results are made of, and the hashes that decide which of them may be reused."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from retrace_pl._version import __version__
from retrace_pl.mls_bench.methods import Plug
from retrace_pl.mls_bench.scores import Measured
from retrace_pl.mls_bench.settings import PRETRAINING, Limits, Setting
from retrace_pl.pipeline.config import TrainerSettings
from retrace_pl.pipeline.run_folder import fingerprint

VERSION = 1
"""Raised when the same settings would give another result than before, so that old files are not reused."""


def training_key(setting: Setting, limits: Limits, seed: int, digest: str, trainer: TrainerSettings) -> str:
    """Hash of what f+ and the reference depend on; the reference's name holds the class."""
    used = {name: value for name, value in asdict(limits).items() if name != "unlearn_epochs"}
    return fingerprint([VERSION, setting.task.name, used, PRETRAINING, seed, digest, trainer.precision])


def recipe_of(plug: Plug) -> dict[str, Any]:
    """The settings that a method runs with."""
    method = plug.method
    return {
        "optimizer": method.optimizer_name,
        "lr": method.lr,
        "weight_decay": method.weight_decay,
        "strength": method.strength,
        "epochs": method.epochs,
        "batch_size": method.batch_size,
    }


def gap_to(scores: dict[str, Any], retrained: Measured) -> dict[str, float]:
    """The metrics minus those of the retrained reference."""
    return {name: scores[name] - value for name, value in retrained.as_dict().items()}


def with_nan(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored run, whose NaN JSON had to write as null."""
    if stored["measured"] is not None:
        stored["measured"] = {k: float("nan") if v is None else v for k, v in stored["measured"].items()}
    return stored


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {
        "retrace_pl": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
