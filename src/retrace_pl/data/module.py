"""The data of an audit: what is trained on, deleted, public, and held back for the evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from retrace_pl.data.augment import Augmentation
from retrace_pl.data.loading import Batch, build_loader
from retrace_pl.data.preparation import Prepared, SplitSettings, prepare
from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.data.tensors import LabelledTensors
from retrace_pl.data.views import SplitView, UnlearningView, next_epoch
from retrace_pl.errors import InputError

SPLITS = ("train", "retain", "forget", "public", "evaluator", "test")


class UnlearningDataModule(LightningDataModule):
    """Disjoint, seeded splits of a labelled image data set: train = retain + forget, public, evaluator and test.

    All splits are stratified by class. ``test`` comes from the source's test partition where it has one, everything
    else from its train partition. No image is in two of retain, forget, public, evaluator and test, not even as a copy
    under another position: a copy stays in the first of forget, retain, test, evaluator, public that holds it and is
    dropped from the others, so a split may end up smaller than asked for by as many (see ``dropped_copies``).

    Args:
        source: Where the images come from.
        forget_class: Delete every train record of these classes: an index, a name, or a list of them. Set exactly one
            of the three ``forget_`` settings.
        forget_fraction: Delete this share of the train records, strictly between 0 and 1, drawn at random (seeded,
            stratified by class).
        forget_indices: Delete the records at these positions of the train split. The train split is ordered as the
            source is, so position 0 is its earliest record that was drawn for training; positions are counted before
            copies are dropped.
        public_includes_deleted: Whether the public set may hold other images of the deleted classes. Only for
            ``forget_class``: after deletion of single records it always holds images of every class.
        train_size: Records to train on, retained and deleted together. None: 60 % of the source's train partition,
            or 50 % if it has no test partition.
        public_size: Public records. None: 20 % of what it may hold.
        evaluator_size: Records that the independent evaluation classifier is trained on. None: 20 %, or 15 % if the
            source has no test partition.
        test_size: Test records. None: the source's whole test partition, or 15 % if it has none.
        image_size: Side of the square images in pixels; images are cropped at the centre and resized.
        channels: 1 (colour becomes luminance) or 3 (greyscale is replicated).
        augmentation: Of the images trained on: ``none``, ``crop`` (shift by up to an eighth of the side) or
            ``crop_flip`` (also mirror left to right).
        batch_size: Records per batch.
        num_workers: Processes that assemble batches. The images are in memory, so 0 is usually fastest.
        seed: Seed of the splits, of shuffling and of augmentation; at least 0.

    Raises:
        InputError: If the settings contradict each other; on ``setup`` also if they do not fit the data.
    """

    def __init__(
        self,
        source: ImageSource,
        forget_class: int | str | list[int] | list[str] | None = None,
        forget_fraction: float | None = None,
        forget_indices: list[int] | None = None,
        public_includes_deleted: bool = False,
        train_size: int | None = None,
        public_size: int | None = None,
        evaluator_size: int | None = None,
        test_size: int | None = None,
        image_size: int = 32,
        channels: int = 3,
        augmentation: Augmentation = "none",
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.settings = SplitSettings(
            forget_class=forget_class,
            forget_fraction=forget_fraction,
            forget_indices=forget_indices,
            public_includes_deleted=public_includes_deleted,
            sizes={"train": train_size, "test": test_size, "evaluator": evaluator_size, "public": public_size},
            image_size=image_size,
            channels=channels,
            seed=seed,
        )
        if augmentation not in get_args(Augmentation):
            raise InputError(f"augmentation: {augmentation!r} is none of {', '.join(get_args(Augmentation))}")
        if batch_size < 1 or num_workers < 0:
            raise InputError(f"batch_size {batch_size} must be at least 1 and num_workers {num_workers} at least 0")
        self.image_size = image_size
        self.channels = channels
        self.augmentation: Augmentation = augmentation
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.deletion: Literal["class", "records"] = self.settings.deletion
        self.public_includes_deleted = public_includes_deleted or self.deletion == "records"
        self._opened: SourceImages | None = None
        self._prepared: Prepared | None = None

    # --- Lightning hooks ------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what the source was told to download (Lightning calls this in one process only)."""
        if self._prepared is None:
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits and decode their images; once, whatever the stage.

        Raises:
            InputError: If the settings do not fit the data, or the data cannot be read.
        """
        if self._prepared is None:
            self._prepared = prepare(self._open(), self.settings)
            self._opened = None  # the splits are in memory now

    def train_dataloader(self) -> DataLoader[Batch]:
        """The train split, shuffled and augmented."""
        return self.loader_of(self.split("train"), shuffle=True, augment=True, epoch=next_epoch(self.trainer))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order."""
        return self.loader("test")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order."""
        return self.loader("test")

    # --- What was prepared; each of these sets up first where nobody did -------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is a position in it."""
        return self._ready().classes

    @property
    def num_classes(self) -> int:
        """Number of classes, deleted ones included."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, image_size, image_size)."""
        return (self.channels, self.image_size, self.image_size)

    @property
    def deleted_classes(self) -> tuple[int, ...]:
        """The deleted classes, or the classes of the deleted records; ascending."""
        return self._ready().deleted_classes

    @property
    def dropped_copies(self) -> dict[str, int]:
        """How many records each split lost because the same image is in a split that goes before it."""
        return dict(self._ready().dropped)

    def split(self, name: str) -> LabelledTensors:
        """The records of a split.

        Args:
            name: One of ``SPLITS``.

        Raises:
            InputError: If there is no such split.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}; the splits are {', '.join(SPLITS)}")
        return self._ready().splits[name]

    def rearranged(
        self,
        splits: Mapping[str, LabelledTensors],
        deletion: Literal["class", "records"],
        deleted_classes: Sequence[int],
    ) -> UnlearningDataModule:
        """The same settings over other splits, for a second deletion on the same data; this module stays as it is.

        Args:
            splits: Splits to replace; every other one stays.
            deletion: Whether these splits delete whole classes or single records.
            deleted_classes: The classes they delete, or the classes of the records they delete.
        """
        prepared = self._ready()
        other = copy.copy(self)
        other.deletion = deletion
        other._prepared = replace(
            prepared, splits={**prepared.splits, **splits}, deleted_classes=tuple(sorted(deleted_classes))
        )
        return other

    def class_counts(self) -> dict[str, dict[str, int]]:
        """Records per split and class name."""
        counts = {}
        for name in SPLITS:
            numbers = torch.bincount(self.split(name).labels, minlength=self.num_classes).tolist()
            counts[name] = dict(zip(self.classes, numbers, strict=True))
        return counts

    # --- Loaders ---------------------------------------------------------------------------------------------------

    def loader(
        self, name: str, *, batch_size: int | None = None, shuffle: bool = False, augment: bool = False
    ) -> DataLoader[Batch]:
        """A loader of one split: batches ``(inputs float32 [b, C, S, S] in [0, 1], labels int64 [b])``.

        Args:
            name: One of ``SPLITS``.
            batch_size: Records per batch; None for the module's.
            shuffle: Shuffle anew each epoch (Lightning tells the sampler which).
            augment: Apply the module's augmentation.
        """
        return self.loader_of(self.split(name), batch_size=batch_size, shuffle=shuffle, augment=augment)

    def loader_of(
        self,
        tensors: LabelledTensors,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: bool = False,
        batches: int | None = None,
        epoch: int = 0,
    ) -> DataLoader[Batch]:
        """A loader of any records, with the module's seed and augmentation; arguments as :func:`build_loader`."""
        return build_loader(
            tensors,
            self.batch_size if batch_size is None else batch_size,
            shuffle=shuffle,
            augmentation=self.augmentation if augment else "none",
            seed=self.seed,
            num_workers=self.num_workers,
            batches=batches,
            epoch=epoch,
        )

    def view(
        self, train: str, val: str = "test", *, batch_size: int | None = None, augment: bool = True
    ) -> LightningDataModule:
        """A data module that fits on one split and validates on another.

        Args:
            train: Split to fit on, shuffled.
            val: Split to validate and test on, in order.
            batch_size: Records per batch; None for the module's.
            augment: Apply the module's augmentation to the split that is fitted on.
        """
        for name in (train, val):
            if name not in SPLITS:
                raise InputError(f"there is no split {name!r}; the splits are {', '.join(SPLITS)}")
        return SplitView(self, train, val, batch_size=batch_size, augment=augment)

    def unlearning_view(self, *, batch_size: int | None = None) -> LightningDataModule:
        """A data module for unlearning: batches ``{"retain": batch, "forget": batch}`` in step.

        The shorter of the two starts over, in a new order, until the longer one is through. Its two validation loaders
        are the test images of the retained and of the deleted classes; after deletion of single records, all test
        images and the deleted records.

        Args:
            batch_size: Records per batch of each kind; None for the module's.
        """
        return UnlearningView(self, batch_size=batch_size)

    # --- Preparation -----------------------------------------------------------------------------------------------

    def _ready(self) -> Prepared:
        self.setup()
        assert self._prepared is not None
        return self._prepared

    def _open(self) -> SourceImages:
        if self._opened is None:
            self._opened = self.source.open()
        return self._opened
