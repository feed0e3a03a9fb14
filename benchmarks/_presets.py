"""Packaged YAML presets as objects."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def instantiate(name: str, **changes: Any) -> Any:
    """The object that ``configs/NAME.yaml`` describes by ``class_path`` and ``init_args``, parts of it included.

    Args:
        name: Path below ``configs/`` without its suffix.
        **changes: Arguments that replace those of the file.
    """
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return build(settings | {"init_args": settings.get("init_args", {}) | changes})


def build(settings: Any) -> Any:
    """What plain settings describe: an object where they name a class, lists of such, or themselves."""
    if isinstance(settings, list):
        return [build(part) for part in settings]
    if not (isinstance(settings, dict) and "class_path" in settings):
        return settings
    module, _, kind = settings["class_path"].rpartition(".")
    arguments = {name: build(part) for name, part in settings.get("init_args", {}).items()}
    return getattr(import_module(module), kind)(**arguments)
