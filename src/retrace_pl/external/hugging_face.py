"""Image classifiers in folders that Hugging Face transformers has saved."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from retrace_pl.data.paths import one_line
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput

__all__ = ["read_hugging_face"]

_TEXT = ("ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForCausalLM")
"""How the names of architectures that read texts end."""


def read_hugging_face(folder: Path, option: str) -> tuple[nn.Module, ImageInput]:
    """Loads ``AutoModelForImageClassification`` from a local folder.

    Only safetensors weights and architectures of the library itself are loaded: no pickle, no code of the folder, no
    download.

    Args:
        folder: A folder with ``config.json`` and ``model.safetensors``.
        option: The command-line option that named it, for messages.

    Returns:
        The model on the CPU, in eval mode, and the images it takes by its ``preprocessor_config.json``.

    Raises:
        InputError: The folder is no such model, has pickled weights alone, or wants its own code to be run.
    """
    config = _json(folder / "config.json", option)
    if config is None:
        raise InputError(f"{option}: {folder} has no config.json; give a Hugging Face folder or a model file")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{option}: {folder} has no safetensors weights, and pickled ones can run any code; save the model with "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{option}: {folder} is an adapter of another model; merge them and save the whole model")
    if "auto_map" in config:
        raise InputError(f"{option}: {folder} needs code of its own to be run, which is refused; export it with "
                         "torch.export instead")  # fmt: skip
    if any(str(name).endswith(_TEXT) for name in config.get("architectures") or ()):
        raise InputError(
            f"{option}: {folder} is a text classifier, and pairs brought along are of images only; audit texts with "
            "`retrace audit --config ag_news_distilbert`, or use ModelPair and TextUnlearningDataModule from Python"
        )
    from transformers import AutoModelForImageClassification

    try:
        with _quiet():
            model: nn.Module = AutoModelForImageClassification.from_pretrained(
                str(folder), use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:
        raise InputError(f"{option}: {folder} is no image classifier that can be loaded: {one_line(error)}") from error
    return model.eval(), _images(config, _json(folder / "preprocessor_config.json", option) or {})


def _images(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> ImageInput:
    """What the folder says about the images; resizing other than to a square is not read."""
    size = preprocessor.get("crop_size") if preprocessor.get("do_center_crop") else preprocessor.get("size")
    side: Any = size
    if isinstance(size, Mapping):
        side = size.get("height") if size.get("height") == size.get("width") else None
        side = side or size.get("shortest_edge")
    rescaled = preprocessor.get("do_rescale", True)
    normalised = preprocessor.get("do_normalize", True) and "image_mean" in preprocessor
    return ImageInput(
        image_size=side or config.get("image_size"),
        channels=config.get("num_channels"),
        mean=tuple(preprocessor["image_mean"]) if normalised else None,
        std=tuple(preprocessor["image_std"]) if normalised else None,
        input_range=((0.0, 1.0) if rescaled else (0.0, 255.0)) if preprocessor else None,
    )


def _json(path: Path, option: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{option}: {path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise InputError(f"{option}: {path} cannot be read: it holds no settings")
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the library's progress bar and notes off the terminal."""
    from transformers.utils import logging as notes

    logger = logging.getLogger("transformers")
    level, bars = logger.level, notes.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    notes.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            notes.enable_progress_bar()  # type: ignore[no-untyped-call]
