"""Classifiers of images and texts in folders that Hugging Face transformers has saved."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retrace_pl.data.paths import one_line
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput
from retrace_pl.external.inputs import ModelInputs
from retrace_pl.external.texts import NamedTokenizer, TextInput
from retrace_pl.models.sequence_classifier import SequenceClassifier
from retrace_pl.traces import Access

__all__ = ["read_hugging_face"]

_OTHER_TEXTS = ("ForTokenClassification", "ForMaskedLM", "ForCausalLM", "ForQuestionAnswering", "ForMultipleChoice")
"""How the names of architectures end that read texts and give a whole text no class."""

Read = tuple[nn.Module, ModelInputs, Access]
"""The model on the CPU, in eval mode, what it takes, and the highest access that it allows."""


def read_hugging_face(folder: Path, option: str) -> Read:
    """Loads a classifier of images or of texts from a local folder, by the architecture that its settings name.

    Only safetensors weights and architectures of the library itself are loaded: no pickle, no code of the folder, no
    download.

    Args:
        folder: A folder with ``config.json`` and ``model.safetensors``; for texts also with the tokenizer's files.
        option: The command-line option that named it, for messages.

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
    names = [str(name) for name in config.get("architectures") or ()]
    if any(name.endswith(_OTHER_TEXTS) for name in names):
        raise InputError(
            f"{option}: {folder} holds {names[0]}, which gives a text no class; give a model that "
            "AutoModelForSequenceClassification loads"
        )
    readers = [reader for ending, reader in _READERS.items() if any(name.endswith(ending) for name in names)]
    return (readers[0] if readers else _read_images)(folder, config, option)


def _read_images(folder: Path, config: Mapping[str, Any], option: str) -> Read:
    model = _loaded("AutoModelForImageClassification", folder, f"{option}: {folder} is no image classifier")
    images = _images(config, _json(folder / "preprocessor_config.json", option) or {})
    return model.eval(), images, Access.WHITE


def _read_texts(folder: Path, config: Mapping[str, Any], option: str) -> Read:
    """Gradients are taken at the word embeddings; where an architecture gives other answers from there, gray is all."""
    if config.get("problem_type") == "multi_label_classification":
        raise InputError(f"{option}: {folder} gives a text several classes at once; give a model that chooses one")
    if config.get("pad_token_id") is None:
        raise InputError(
            f"{option}: {folder} names no pad_token_id in its config.json, so texts cannot be told from their padding; "
            "set it to that of the tokenizer"
        )
    eager = {"attn_implementation": "eager"}  # fused attention has no second derivatives
    named = NamedTokenizer(str(folder), option) if any((folder / name).is_file() for name in _TOKENIZERS) else None
    found = _loaded("AutoModelForSequenceClassification", folder, f"{option}: {folder} is no text classifier", **eager)
    settings: Any = found.config
    pad = int(config["pad_token_id"])
    model = SequenceClassifier(found, pad).eval()
    texts = TextInput(
        tokenizer=named,
        window=getattr(settings, "max_position_embeddings", None),
        vocab_size=model.vocab_size,
        pad_id=pad,
    )
    other = 1 if pad == 0 else 0
    probe = torch.tensor([[other, other, other], [other, other, pad]])
    try:
        whole = model.starts_at_embeddings(probe)
    except Exception as error:
        raise InputError(f"{option}: {folder} cannot be run on token ids: {one_line(error)}") from error
    return model, texts, Access.WHITE if whole else Access.GRAY


_READERS: dict[str, Callable[[Path, Mapping[str, Any], str], Read]] = {"ForSequenceClassification": _read_texts}
"""How the name of an architecture ends -> what reads it; all others are taken for classifiers of images."""

_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")


def _loaded(kind: str, folder: Path, problem: str, **settings: Any) -> nn.Module:
    import transformers

    try:
        with _quiet():
            model: nn.Module = getattr(transformers, kind).from_pretrained(
                str(folder), use_safetensors=True, trust_remote_code=False, local_files_only=True, **settings
            )
    except Exception as error:
        raise InputError(f"{problem} that can be loaded: {one_line(error)}") from error
    return model


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
