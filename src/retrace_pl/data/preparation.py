"""From an opened source to splits in memory: sizes, draws, decoding and copies in one place.

The draw and what is checked afterwards are the same for every kind of record; decoding is that of images.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from retrace_pl.data import splits as plan
from retrace_pl.data.duplicates import drop_copies
from retrace_pl.data.pixels import RawImages, materialise
from retrace_pl.data.records import LabelledRecords
from retrace_pl.data.sources.base import OpenedSource, SourceImages
from retrace_pl.data.tensors import LabelledTensors
from retrace_pl.errors import InputError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """What decides the records of the splits; arguments as of :class:`UnlearningDataModule`.

    Args:
        forget_class: Classes to delete.
        forget_fraction: Share of the train records to delete.
        forget_indices: Positions in the train split to delete.
        public_includes_deleted: Whether the public set may hold records of the deleted classes.
        sizes: Records of train, test, evaluator and public, None where the default share applies.
        seed: Seed of every draw.

    Raises:
        InputError: If the settings contradict each other.
    """

    forget_class: int | str | Sequence[int | str] | None
    forget_fraction: float | None
    forget_indices: Sequence[int] | None
    public_includes_deleted: bool
    sizes: Mapping[str, int | None]
    seed: int

    def __post_init__(self) -> None:
        forget = ("forget_class", "forget_fraction", "forget_indices")
        given = [name for name in forget if getattr(self, name) is not None]
        if len(given) != 1:
            found = "none of them is" if not given else " and ".join(given) + " are"
            raise InputError(f"set exactly one of forget_class, forget_fraction and forget_indices; {found} set")
        if self.forget_fraction is not None:
            plan.check_fraction(self.forget_fraction)
        for name, size in self.sizes.items():
            if size is not None and size < 1:
                raise InputError(f"{name}_size: {size} leaves the split empty; ask for at least one record")
        if self.seed < 0:
            raise InputError(f"seed: {self.seed} is below 0")

    @property
    def deletion(self) -> Literal["class", "records"]:
        """Whether whole classes or single records are deleted."""
        return "records" if self.forget_class is None else "class"


@dataclass(frozen=True, kw_only=True)
class ImageSettings(SplitSettings):
    """What decides the records and pixels of the splits; further arguments as of :class:`SplitSettings`.

    Args:
        image_size: Side in pixels.
        channels: 1 or 3.

    Raises:
        InputError: If the settings contradict each other.
    """

    image_size: int
    channels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise InputError(f"channels: {self.channels} is neither 1 (greyscale) nor 3 (colour)")
        if self.image_size < 4:
            raise InputError(f"image_size: {self.image_size} is below 4")


@dataclass(frozen=True)
class Prepared:
    """Splits in memory.

    Args:
        classes: Class names.
        deleted_classes: Deleted classes, or the classes of deleted records.
        splits: Records per split.
        dropped: Copies dropped per split.
    """

    classes: tuple[str, ...]
    deleted_classes: tuple[int, ...]
    splits: Mapping[str, LabelledRecords]
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class Draw:
    """Which records are in which split, before any was read.

    Args:
        classes: Class names.
        deleted: The deleted classes; None where single records are deleted.
        positions: Positions in the source's partition per split, ascending; first the splits that keep their copies.
    """

    classes: tuple[str, ...]
    deleted: tuple[int, ...] | None
    positions: Mapping[str, plan.IntArray]


def prepare(opened: SourceImages, settings: ImageSettings) -> Prepared:
    """Draw the splits, decode their images once, and drop copies across splits.

    Raises:
        InputError: If the settings do not fit the data, or an image cannot be read.
    """
    draw = draw_records(opened, settings)
    decoded = {name: _decode(opened, settings, name, where) for name, where in draw.positions.items()}
    return assemble(draw, *drop_copies(decoded), noun="image")


def draw_records(opened: OpenedSource, settings: SplitSettings) -> Draw:
    """Draw forget, retain, test, evaluator and public, in this order; all but ``test`` from the train partition.

    Raises:
        InputError: If the settings do not fit the data.
    """
    count = len(opened.classes)
    deleted = None if settings.forget_class is None else plan.resolve_classes(settings.forget_class, opened.classes)
    excluded = deleted if deleted is not None and not settings.public_includes_deleted else ()
    drawn = _draw(opened, settings, excluded)

    train_labels = opened.train.labels[drawn["train"]]
    if deleted is not None:
        forget = plan.forget_by_class(train_labels, deleted, opened.classes)
    elif settings.forget_fraction is not None:
        forget = plan.forget_by_fraction(train_labels, settings.forget_fraction, count, settings.seed)
    else:
        forget = plan.forget_by_index(len(train_labels), settings.forget_indices or [])
    positions = {
        "forget": drawn["train"][forget],
        "retain": np.delete(drawn["train"], forget),
        "test": drawn["test"],
        "evaluator": drawn["evaluator"],
        "public": drawn["public"],
    }
    return Draw(opened.classes, deleted, positions)


def assemble(
    draw: Draw,
    splits: Mapping[str, LabelledRecords],
    dropped: Mapping[str, int],
    noun: str,
    repeated: Mapping[str, int] | None = None,
) -> Prepared:
    """Check what is left without copies and add the train split.

    Args:
        draw: What was drawn.
        splits: Its records, without copies.
        dropped: Copies dropped per split.
        noun: What a record is called in messages.
        repeated: How many of them per split are copies of a record of the same split; None stands for none.

    Raises:
        InputError: If a split holds nothing but copies.
    """
    _report_copies(splits, dropped, repeated or dict.fromkeys(dropped, 0), noun)
    whole = {**splits, "train": splits["retain"].merged(splits["forget"])}
    deleted = draw.deleted or tuple(np.unique(splits["forget"].labels.numpy()).tolist())
    return Prepared(draw.classes, deleted, whole, dropped)


def _draw(opened: OpenedSource, settings: SplitSettings, excluded: tuple[int, ...]) -> dict[str, plan.IntArray]:
    labels, count = opened.train.labels, len(opened.classes)
    shares = plan.SHARES_WITHOUT_TEST if opened.test is None else plan.SHARES_WITH_TEST
    public_available = int(np.isin(labels, excluded, invert=True).sum())
    sizes = plan.plan_sizes(settings.sizes, shares, len(labels), public_available)
    drawn = plan.draw_splits(labels, sizes, count, settings.seed, excluded)
    if opened.test is not None:
        test_labels = opened.test.labels
        sizes = plan.plan_sizes(settings.sizes, {"test": 100}, len(test_labels), 0)
        drawn |= plan.draw_splits(test_labels, sizes, count, settings.seed)
    return drawn


def _decode(opened: SourceImages, settings: ImageSettings, name: str, positions: plan.IntArray) -> LabelledTensors:
    images: RawImages = opened.test if name == "test" and opened.test is not None else opened.train
    pixels = materialise(images, positions, settings.image_size, settings.channels)
    return LabelledTensors(
        torch.from_numpy(pixels), torch.from_numpy(images.labels[positions]), torch.from_numpy(positions)
    )


def _report_copies(
    splits: Mapping[str, LabelledRecords], dropped: Mapping[str, int], repeated: Mapping[str, int], noun: str
) -> None:
    for name, records in splits.items():
        if len(records) == 0:
            raise InputError(
                f"all {dropped[name]} {noun}s of the {name} split are copies of {noun}s in other splits;"
                " remove the copies from the data set"
            )
    elsewhere = {name: number - repeated[name] for name, number in dropped.items()}
    for where, counts in (("in another split", elsewhere), ("in the same split", repeated)):
        if any(counts.values()):
            lost = ", ".join(f"{number} from {name}" for name, number in counts.items() if number)
            _log.info("dropped copies of %ss that are %s: %s", noun, where, lost)
