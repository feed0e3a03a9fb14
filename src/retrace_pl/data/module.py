"""The data of an audit of image classifiers: what is trained on, deleted, public, and held back."""

from __future__ import annotations

from typing import Any, get_args

from torch.utils.data import DataLoader

from retrace_pl.data.augment import Augmentation
from retrace_pl.data.base import SPLITS, AuditDataModule
from retrace_pl.data.loading import Batch, build_loader
from retrace_pl.data.preparation import ImageSettings, Prepared, prepare
from retrace_pl.data.sources.base import ImageSource, SourceImages
from retrace_pl.data.tensors import LabelledTensors
from retrace_pl.errors import InputError
from retrace_pl.metrics import ImageDomain

__all__ = ["SPLITS", "UnlearningDataModule"]


class UnlearningDataModule(AuditDataModule):
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

    noun = "image"

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
        settings = ImageSettings(
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
        super().__init__(
            source,
            settings,
            public_includes_deleted=public_includes_deleted,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        self.image_settings = settings
        self.image_size = image_size
        self.channels = channels
        self.augmentation: Augmentation = augmentation

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (channels, image_size, image_size)."""
        return (self.channels, self.image_size, self.image_size)

    @property
    def input_size(self) -> int:
        """Channels of an image."""
        return self.channels

    @property
    def sample_space(self) -> tuple[int, ...]:
        """Shape of one image: (channels, image_size, image_size)."""
        return self.input_shape

    @property
    def domain(self) -> ImageDomain:
        """Distances, metrics and words of images."""
        return ImageDomain()

    @property
    def batching(self) -> dict[str, Any]:
        """Augmentation, and the seed of it and of the order."""
        return {"augmentation": self.augmentation, "data_seed": self.seed}

    def loader_of(
        self,
        records: LabelledTensors,
        *,
        batch_size: int | None = None,
        shuffle: bool = False,
        augment: bool = False,
        batches: int | None = None,
        epoch: int = 0,
    ) -> DataLoader[Batch]:
        """A loader of any images, with the module's seed and augmentation; arguments as :func:`build_loader`."""
        return build_loader(
            records,
            self.batch_size if batch_size is None else batch_size,
            shuffle=shuffle,
            augmentation=self.augmentation if augment else "none",
            seed=self.seed,
            num_workers=self.num_workers,
            batches=batches,
            epoch=epoch,
        )

    def _prepare(self, opened: SourceImages) -> Prepared:
        return prepare(opened, self.image_settings)
