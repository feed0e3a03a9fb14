"""A data module over records that are in memory already, without any split."""

from __future__ import annotations

from typing import Protocol

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from retrace_pl.data.loading import Batch
from retrace_pl.data.views import next_epoch


class MakesLoader(Protocol):
    """Makes a loader of the given records."""

    def __call__(self, batch_size: int, *, shuffle: bool, seed: int, epoch: int = 0) -> DataLoader[Batch]:
        """Batches of so many records, in the order that the seed gives the epoch where they are shuffled."""


class GivenRecords(LightningDataModule):
    """Fits on all of the given records; there are no others to validate on.

    Args:
        loader: Makes a loader of the records.
        batch_size: Records per batch.
        seed: Seed of the order.
    """

    def __init__(self, loader: MakesLoader, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.loader = loader
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """The records, shuffled anew each epoch."""
        return self.loader(self.batch_size, shuffle=True, seed=self.seed, epoch=next_epoch(self.trainer))

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same records, in order; training tasks want one, also where the trainer leaves validation out."""
        return self.loader(self.batch_size, shuffle=False, seed=self.seed)
