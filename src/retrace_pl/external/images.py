"""Attacks on foreign models of images: their data, their preprocessing, and the generator that suits them."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrace_pl.data import ImageFolderSource, ImageSource, LabelledTensors, RawImages
from retrace_pl.data.loading import build_loader
from retrace_pl.data.paths import expand, explained
from retrace_pl.data.pixels import ArrayImages, materialise
from retrace_pl.data.sources.folder import unlabelled_images
from retrace_pl.errors import InputError
from retrace_pl.external.adapters import ImageInput, PreparedModel, Preprocess
from retrace_pl.external.inputs import Material, ModelInputs, RecordSet, few_of
from retrace_pl.external.outputs import OutputKind
from retrace_pl.external.packaged import packaged_model, registered_source
from retrace_pl.external.questions import ArrayQuestions, Questions
from retrace_pl.metrics import ImageDomain
from retrace_pl.models import DCGAN
from retrace_pl.pipeline.config import GeneratorSettings

if TYPE_CHECKING:
    from retrace_pl.external.config import PublicGeneratorSettings

__all__ = ["ImageMaterial", "packaged_generator", "read_images"]

GENERATOR_STEPS = 6000
"""Updates of the generator where its epochs are not set: between those of the packaged audits."""

_TEXT_FILES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".arrow")
_IMAGE_KEYS, _LABEL_KEYS = ("x", "images", "train_images"), ("y", "labels", "train_labels")


class ImageMaterial(Material):
    """Images [n, C, S, S] in [0, 1].

    Args:
        inputs: What was declared of them, completed by what the models' files say.
        size: Side of the generated images; None: the models' own where a small generator can make it, and at most 32.

    Raises:
        InputError: A value is missing or out of range.
    """

    noun = "images"
    advice = "check --image-size and --channels"
    declared = "--input-range, --mean and --std"

    def __init__(self, inputs: ImageInput, size: int | None = None) -> None:
        self.inputs = inputs
        self.preprocess = Preprocess(inputs)
        own = self.preprocess.image_size
        self.size = size if size is not None else own if own in (8, 16, 32) else 16 if own < 16 else 32
        self.domain = ImageDomain()

    def check(self, option: str, inputs: ModelInputs | None) -> None:
        """Nothing: what files say has gone into the preprocessing."""

    def read(
        self, name: str, option: str, *, exclude: tuple[str, ...] = (), limit: int | None = None, seed: int = 0
    ) -> RecordSet:
        """See `read_images`."""
        channels = self.preprocess.channels
        return read_images(name, option, self.size, channels, exclude=exclude, limit=limit, seed=seed)

    def ready(self, batch: Tensor) -> Tensor:
        """Resized, put in range and standardised."""
        return torch.as_tensor(self.preprocess(batch))

    def present(self, inputs: Tensor) -> Questions:
        """The numbers themselves."""
        return ArrayQuestions(inputs)

    def prepare(self, model: nn.Module, kind: OutputKind) -> nn.Module:
        """The model behind its preprocessing."""
        return PreparedModel(model, Preprocess(self.inputs), kind).eval()

    def generator(self, settings: PublicGeneratorSettings, count: int) -> GeneratorSettings:
        """The packaged DCGAN of that size, with about 6,000 updates; what is set goes first."""
        return settings.completed(packaged_generator, count, GENERATOR_STEPS, fewest=5, most=150)

    def sample_space(self) -> tuple[int, ...]:
        """Channels and sides (C, S, S)."""
        return (self.preprocess.channels, self.size, self.size)

    def check_generator(self, model: nn.Module) -> None:
        """Nothing: its architecture is called with the size."""

    def take_public(self, public: RecordSet) -> None:
        """Nothing: distances between images need no other data."""

    def encoding(self) -> dict[str, Any]:
        """Nothing: pixels are pixels."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Size, channels, mean, standard deviation and range."""
        return asdict(self.inputs)


def packaged_generator(shape: tuple[int, ...]) -> DCGAN:
    """The DCGAN of the packaged configurations for images [C, S, S]: the one of 16 pixels, or the one of 32."""
    return DCGAN(shape, **packaged_model("dcgan_16" if shape[-1] <= 16 else "dcgan_32"))


def read_images(
    name: str,
    option: str,
    image_size: int,
    channels: int,
    *,
    exclude: tuple[str, ...] = (),
    limit: int | None = None,
    seed: int = 0,
) -> RecordSet:
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
    known = torch.from_numpy(np.asarray(images.labels, dtype=np.int64))
    positions = few_of(known, classes, name, exclude, limit, seed)
    if len(positions) == 0:
        raise InputError(f"{option}: {name} has no images that are not left out")
    with explained(f"{option}: {name} cannot be read"):
        pixels = materialise(images, positions.numpy(), image_size, channels)
    records = LabelledTensors(torch.from_numpy(pixels), known[positions], positions)
    return RecordSet(records, classes, title, partial(build_loader, records, augmentation="none"))


Found = tuple[RawImages, tuple[str, ...] | None, str]


def _refuse_texts(path: Path, option: str) -> None:
    """Texts are told by their files: a folder of nothing else, or one of them."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    if files and all(file.suffix.lower() in _TEXT_FILES for file in files):
        raise InputError(
            f"{option}: {path} holds tables or texts, and the models take images; give a folder of images or an .npz "
            "file, or name the tokenizer of models of texts with --tokenizer"
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
        if images.ndim == 0 or len(images) == 0:
            raise InputError(f"{option}: {path} has no images in {key}, whose shape is {list(images.shape)}")
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
    source: ImageSource
    source, partition = registered_source(name, option, ImageSource, "no folder, no .npz file", "images")
    opened = source.open()
    images = opened.test if partition == "test" else opened.train
    if images is None:
        raise InputError(f"{option}: {name.partition(':')[0]} has no test partition; name the data set alone")
    return images, opened.classes, source.title
