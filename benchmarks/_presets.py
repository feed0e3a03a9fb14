"""Packaged YAML presets as objects."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def instantiate(name: str, **changes: Any) -> Any:
    """The object that ``configs/NAME.yaml`` describes by ``class_path`` and ``init_args``.

    Args:
        name: Path below ``configs/`` without its suffix.
        **changes: Arguments that replace those of the file.
    """
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    module, _, kind = settings["class_path"].rpartition(".")
    return getattr(import_module(module), kind)(**settings.get("init_args", {}) | changes)
