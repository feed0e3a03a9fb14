"""A data module over records that are in memory already, without any split."""

from __future__ import annotations

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from retrace_pl.data.loading import Batch, build_loader
from retrace_pl.data.tensors import LabelledTensors
from retrace_pl.data.views import next_epoch


class GivenRecords(LightningDataModule):
    """Fits on all of the given records; there are no others to validate on.

    Args:
        tensors: The records.
        batch_size: Records per batch.
        seed: Seed of the order.
    """

    def __init__(self, tensors: LabelledTensors, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.tensors = tensors
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Batch]:
        """The records, shuffled anew each epoch."""
        return build_loader(
            self.tensors,
            self.batch_size,
            shuffle=True,
            augmentation="none",
            seed=self.seed,
            epoch=next_epoch(self.trainer),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same records, in order; training tasks want one, also where the trainer leaves validation out."""
        return build_loader(self.tensors, self.batch_size, shuffle=False, augmentation="none", seed=self.seed)
