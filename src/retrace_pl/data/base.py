"""What the data of every audit offers, whatever its records are: splits, loaders, and views for each training."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader

from retrace_pl.data.loading import Batch
from retrace_pl.data.preparation import Prepared, SplitSettings
from retrace_pl.data.records import LabelledRecords
from retrace_pl.data.sources.base import DataSource
from retrace_pl.data.views import SplitView, UnlearningView, next_epoch
from retrace_pl.errors import InputError
from retrace_pl.metrics import Domain

SPLITS = ("train", "retain", "forget", "public", "evaluator", "test")


class AuditDataModule(LightningDataModule, ABC):
    """Disjoint, seeded splits of a labelled data set: train = retain + forget, public, evaluator and test.

    Subclasses say what a record is: how it is decoded (`_prepare`), loaded (`loader_of`), and what models and
    generators are built for (`input_size`, `sample_space`), and how candidates are judged (`domain`).

    Args:
        source: Where the records come from.
        settings: What decides the splits.
        public_includes_deleted: Whether the public set may hold records of the deleted classes.
        batch_size: Records per batch.
        num_workers: Processes that assemble batches.

    Raises:
        InputError: If a number is out of range.
    """

    noun: ClassVar[str]
    """What a record is called in messages."""

    judging_settings: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that only the evaluation reads; stages before it do not run again when they change."""

    def __init__(
        self,
        source: DataSource,
        settings: SplitSettings,
        *,
        public_includes_deleted: bool,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise InputError(f"batch_size {batch_size} must be at least 1 and num_workers {num_workers} at least 0")
        self.source = source
        self.settings = settings
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = settings.seed
        self.deletion: Literal["class", "records"] = settings.deletion
        self.public_includes_deleted = public_includes_deleted or self.deletion == "records"
        self._opened: Any = None
        self._prepared: Prepared | None = None

    # --- What a subclass says about its records ---------------------------------------------------------------------

    @property
    @abstractmethod
    def input_size(self) -> int:
        """What a classifier's first layer reads: channels of an image, size of the vocabulary of texts."""

    @property
    @abstractmethod
    def sample_space(self) -> tuple[int, ...]:
        """What a generator is built for: (C, S, S) of images, (longest text in tokens L, vocabulary V) of texts."""

    @property
    @abstractmethod
    def domain(self) -> Domain:
        """What the evaluation of an audit has to know about this kind of data."""

    @property
    @abstractmethod
    def batching(self) -> dict[str, Any]:
        """How records become batches, as plain values: besides the records, what a training depends on."""

    @property
    def encoding(self) -> dict[str, Any] | None:
        """How records became inputs, as plain values for a report; None where the settings say it all."""
        return None

    def check_model(self, model: nn.Module) -> None:
        """Make sure that a classifier reads, or a generator makes, inputs of this data; to be called on a new model.

        Args:
            model: A model that was built for `input_size` or `sample_space`.

        Raises:
            InputError: If it was built for others.
        """

    @abstractmethod
    def loader_of(
        self,
        records: Any,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: bool = False,
        batches: int | None = None,
        epoch: int = 0,
    ) -> DataLoader[Batch]:
        """A loader of any records of the module's kind.

        Args:
            records: The records.
            batch_size: Records per batch; None for the module's.
            shuffle: Shuffle anew each epoch (Lightning tells the sampler which).
            augment: Apply the module's augmentation, if it has one.
            batches: Batches per epoch; None for one pass.
            epoch: Epoch to start with.
        """

    @abstractmethod
    def _prepare(self, opened: Any) -> Prepared:
        """Draw the splits of an opened source and bring their records into memory."""

    # --- Lightning hooks ------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what the source was told to download (Lightning calls this in one process only)."""
        if self._prepared is None:
            self._open()

    def setup(self, stage: str | None = None) -> None:
        """Draw the splits and read their records; once, whatever the stage.

        Raises:
            InputError: If the settings do not fit the data, or the data cannot be read.
        """
        if self._prepared is None:
            self._prepared = self._prepare(self._open())
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
    def deleted_classes(self) -> tuple[int, ...]:
        """The deleted classes, or the classes of the deleted records; ascending."""
        return self._ready().deleted_classes

    @property
    def dropped_copies(self) -> dict[str, int]:
        """How many records each split lost because an equal one is in a split that goes before it."""
        return dict(self._ready().dropped)

    def split(self, name: str) -> LabelledRecords:
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
        splits: Mapping[str, LabelledRecords],
        deletion: Literal["class", "records"],
        deleted_classes: Sequence[int],
    ) -> Self:
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
        """A loader of one split: batches ``(inputs [b, ...], labels int64 [b])``.

        Args:
            name: One of ``SPLITS``.
            batch_size: Records per batch; None for the module's.
            shuffle: Shuffle anew each epoch (Lightning tells the sampler which).
            augment: Apply the module's augmentation, if it has one.
        """
        return self.loader_of(self.split(name), batch_size=batch_size, shuffle=shuffle, augment=augment)

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
        are the test records of the retained and of the deleted classes; after deletion of single records, all test
        records and the deleted ones.

        Args:
            batch_size: Records per batch of each kind; None for the module's.
        """
        return UnlearningView(self, batch_size=batch_size)

    # --- Preparation -----------------------------------------------------------------------------------------------

    def _ready(self) -> Prepared:
        self.setup()
        assert self._prepared is not None
        return self._prepared

    def _open(self) -> Any:
        if self._opened is None:
            self._opened = self.source.open()
        return self._opened
