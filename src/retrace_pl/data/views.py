"""Data modules over the splits of an :class:`AuditDataModule`, each for one kind of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from retrace_pl.data.loading import Batch
from retrace_pl.errors import InputError

if TYPE_CHECKING:
    from retrace_pl.data.base import AuditDataModule


def next_epoch(trainer: Trainer | None) -> int:
    """The epoch that a trainer is about to run, as long as it has not begun; 0 without a trainer.

    Where a trainer resumes, its own ``current_epoch`` is still one behind at this point.
    """
    if trainer is None:
        return 0
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]  # typed as the base class


class _View(LightningDataModule):
    """Shares the splits of a parent, which it sets up when Lightning sets it up."""

    def __init__(self, parent: AuditDataModule, batch_size: int | None) -> None:
        super().__init__()
        self.parent = parent
        self.batch_size = parent.batch_size if batch_size is None else batch_size

    def prepare_data(self) -> None:
        """Let the parent download what it needs."""
        self.parent.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Let the parent draw its splits."""
        self.parent.setup(stage)


class SplitView(_View):
    """Fits on one split and validates on another.

    Args:
        parent: Where the splits are.
        train: Split to fit on.
        val: Split to validate and test on.
        batch_size: Records per batch; None for the parent's.
        augment: Augment the split that is fitted on.
    """

    def __init__(
        self, parent: AuditDataModule, train: str, val: str, *, batch_size: int | None = None, augment: bool = True
    ) -> None:
        super().__init__(parent, batch_size)
        self.fit_split = train
        self.val_split = val
        self.augment = augment

    def train_dataloader(self) -> DataLoader[Batch]:
        """The split to fit on, shuffled."""
        return self.parent.loader_of(
            self.parent.split(self.fit_split),
            batch_size=self.batch_size,
            shuffle=True,
            augment=self.augment,
            epoch=next_epoch(self.trainer),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The split to validate on, in order."""
        return self.parent.loader(self.val_split, batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The split to validate on, in order."""
        return self.val_dataloader()


class UnlearningView(_View):
    """Retain and forget batches in step.

    Args:
        parent: Where the splits are.
        batch_size: Records per batch of each kind; None for the parent's.
    """

    def __init__(self, parent: AuditDataModule, *, batch_size: int | None = None) -> None:
        super().__init__(parent, batch_size)

    def train_dataloader(self) -> CombinedLoader:
        """Batches ``{"retain": (inputs, labels), "forget": (inputs, labels)}``, shuffled and augmented."""
        splits = {name: self.parent.split(name) for name in ("retain", "forget")}
        loaders = {name: self._training_loader(name) for name in splits}
        batches = max(len(loader) for loader in loaders.values())
        return CombinedLoader({name: self._training_loader(name, batches) for name in splits}, "max_size_cycle")

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Two loaders: what must still be known, and what must be forgotten."""
        test = self.parent.split("test")
        deleted = set(self.parent.deleted_classes)
        if self.parent.deletion == "records":
            kept, gone = test, self.parent.split("forget")
        else:
            kept, gone = test.of_classes(set(range(self.parent.num_classes)) - deleted), test.of_classes(deleted)
        if len(kept) == 0 or len(gone) == 0:
            which = "retained" if len(kept) == 0 else "deleted"
            raise InputError(f"test_size: the test split holds no {self.parent.noun} of the {which} classes; raise it")
        return [self.parent.loader_of(records, batch_size=self.batch_size) for records in (kept, gone)]

    def _training_loader(self, name: str, batches: int | None = None) -> DataLoader[Batch]:
        return self.parent.loader_of(
            self.parent.split(name),
            batch_size=self.batch_size,
            shuffle=True,
            augment=True,
            batches=batches,
            epoch=next_epoch(self.trainer),
        )
