"""The data of an attack on foreign models: a folder, an ``.npz`` file, or a registered data set by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrace_pl.data import ImageFolderSource, ImageSource, LabelledTensors, RawImages
from retrace_pl.data.paths import expand, explained
from retrace_pl.data.pixels import ArrayImages, materialise
from retrace_pl.data.sources.folder import unlabelled_images
from retrace_pl.errors import InputError
from retrace_pl.external.state_dict import import_named
from retrace_pl.pipeline.parsing import config_folders, read_mapping

__all__ = ["ImageSet", "read_images"]

_TEXT_FILES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".arrow")
_IMAGE_KEYS, _LABEL_KEYS = ("x", "images", "train_images"), ("y", "labels", "train_labels")


@dataclass(frozen=True)
class ImageSet:
    """Images, with their classes where they are known.

    Args:
        tensors: The records; labels are all 0 where the images have none.
        classes: Class names; None where the images have no labels.
        title: Short name for reports.
    """

    tensors: LabelledTensors
    classes: tuple[str, ...] | None
    title: str

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def inputs(self) -> Tensor:
        """The images as float32 [n, C, S, S] in [0, 1]."""
        return self.tensors.inputs

    @property
    def labels(self) -> Tensor | None:
        """Classes int64 [n], where they are known."""
        return None if self.classes is None else self.tensors.labels


def read_images(
    name: str,
    option: str,
    image_size: int,
    channels: int,
    *,
    exclude: tuple[str, ...] = (),
    limit: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Reads images and brings them to one size.

    Args:
        name: A folder of images, with or without a folder for each class; an ``.npz`` file with ``x`` or ``images``
            and optionally ``y`` or ``labels``; or a registered data set such as ``digits``, ``fashion_mnist`` or
            ``fashion_mnist:test`` for its other partition.
        option: The command-line option that named it, for messages.
        image_size: Side S of the images.
        channels: 1 or 3.
        exclude: Classes to leave out, by name or by number.
        limit: Most images kept, drawn at random.
        seed: Seed of that draw.

    Raises:
        InputError: The data cannot be found or read, or has no such class.
    """
    path = Path(expand(name, option))
    _refuse_texts(path, option)
    if path.is_dir():
        images, classes, title = _folder(path)
    elif path.suffix == ".npz" or path.is_file():
        images, classes, title = _archive(path, option)
    else:
        images, classes, title = _registered(name, option)
    positions = np.arange(len(images.labels))
    if exclude:
        positions = positions[~np.isin(images.labels, _numbers(exclude, classes, name))]
    if limit is not None and limit < len(positions):
        positions = np.sort(np.random.default_rng(seed).permutation(positions)[:limit])
    if len(positions) == 0:
        raise InputError(f"{option}: {name} has no images that are not left out")
    with explained(f"{option}: {name} cannot be read"):
        pixels = materialise(images, positions, image_size, channels)
    labels = torch.from_numpy(np.asarray(images.labels[positions], dtype=np.int64))
    return ImageSet(LabelledTensors(torch.from_numpy(pixels), labels, torch.from_numpy(positions)), classes, title)


Found = tuple[RawImages, tuple[str, ...] | None, str]


def _refuse_texts(path: Path, option: str) -> None:
    """Texts are told by their files: a folder of nothing else, or one of them."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    if files and all(file.suffix.lower() in _TEXT_FILES for file in files):
        raise InputError(
            f"{option}: {path} holds tables or texts, and pairs brought along are of images only; give a folder of "
            "images or an .npz file, or audit texts with `retrace audit --config ag_news_distilbert`"
        )


def _folder(path: Path) -> Found:
    if any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir()):
        opened = ImageFolderSource(str(path)).open()
        return opened.train, opened.classes, path.name
    return unlabelled_images(path), None, path.name


def _archive(path: Path, option: str) -> Found:
    if not path.is_file():
        raise InputError(f"{option}: {path} does not exist")
    damaged = f"{option}: {path} cannot be read as .npz without pickles"
    with explained(damaged), path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        names = [str(name) for name in archive.files]
        key = next((key for key in _IMAGE_KEYS if key in names), None)
        label_key = next((key for key in _LABEL_KEYS if key in names), None)
        if key is None:
            raise InputError(f"{option}: {path} has no array x or images; it has {', '.join(names) or 'nothing'}")
        images = archive[key]
        labels: NDArray[Any] = archive[label_key] if label_key else np.zeros(len(images), dtype=np.int64)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0 or int(labels.min()) < 0:
        raise InputError(f"{option}: {path}: {label_key} must hold a whole number, 0 or more, for each image")
    classes = None if label_key is None else tuple(str(index) for index in range(int(labels.max()) + 1))
    return ArrayImages(_bytes(images, f"{option}: {path}"), labels, f"{option}: {path}"), classes, path.stem


def _bytes(images: NDArray[Any], what: str) -> NDArray[np.uint8]:
    """Images uint8 [n, H, W] or [n, H, W, C] from those, from channels-first ones, or from numbers in [0, 1]."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.dtype.kind == "f":
        if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise InputError(f"{what}: images of type {images.dtype} must lie in [0, 1]; others must be uint8")
        images = np.rint(255 * images)
    elif images.dtype != np.uint8:
        raise InputError(f"{what}: images must be uint8, or floating-point numbers in [0, 1], not {images.dtype}")
    return np.ascontiguousarray(images.astype(np.uint8))


def _registered(name: str, option: str) -> Found:
    stem, _, partition = name.partition(":")
    files = {file.stem: file for folder in reversed(config_folders()) for file in (folder / "data").glob("*.yaml")}
    if stem not in files or partition not in ("", "train", "test"):
        known = ", ".join(sorted(files))
        raise InputError(
            f"{option}: {name} is no folder, no .npz file and no registered data set; registered are: {known}, each "
            "also as NAME:test"
        )
    part = read_mapping(files[stem], option)["init_args"]["source"]
    kind = import_named(part["class_path"], option)
    if not (isinstance(kind, type) and issubclass(kind, ImageSource)):
        raise InputError(f"{option}: {stem} holds no images; name a data set of images")
    source: ImageSource = kind(**part.get("init_args", {}))
    opened = source.open()
    images = opened.test if partition == "test" else opened.train
    if images is None:
        raise InputError(f"{option}: {stem} has no test partition; name the data set alone")
    return images, opened.classes, source.title


def _numbers(wanted: tuple[str, ...], classes: tuple[str, ...] | None, name: str) -> list[int]:
    if classes is None:
        raise InputError(f"--exclude-classes: {name} has no labels to leave classes out by")
    found = []
    for value in wanted:
        if value in classes:
            found.append(classes.index(value))
        elif value.isdecimal() and int(value) < len(classes):
            found.append(int(value))
        else:
            raise InputError(f"--exclude-classes: {name} has no class {value}; it has {', '.join(classes[:20])}")
    return found
