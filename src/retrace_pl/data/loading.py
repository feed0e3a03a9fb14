"""Loaders whose batches depend on (seed, epoch) alone, so that a resumed training sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from retrace_pl.data.augment import Augmentation, augment
from retrace_pl.data.tensors import LabelledTensors, as_inputs
from retrace_pl.errors import InputError

Batch = tuple[Tensor, Tensor]


class BatchRequest(NamedTuple):
    """Which records make up a batch, and the seed of its augmentation."""

    positions: Tensor
    seed: int


def derived_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers; different numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class EpochShuffle(DistributedSampler[Any]):
    """Gives the batches of an epoch as a function of (seed, epoch); Lightning calls ``set_epoch``.

    Under several processes each gets an equally long share (the last records are repeated to even them out, as
    Lightning's own sampler does), which is why it derives from ``DistributedSampler``: Lightning then leaves it alone.
    A batch of a single record breaks batch normalisation, so when shuffling the last two batches are evened out where
    the last would hold one record.

    Args:
        size: Number of records n.
        batch_size: Records per batch and process.
        shuffle: Whether to shuffle anew each epoch; otherwise the order is 0 to n - 1.
        seed: Seed of shuffling and augmentation.
        batches: Number of batches per epoch; passes over the data are repeated, each in a new order, until it is
            reached. None means one pass.
    """

    def __init__(self, size: int, batch_size: int, *, shuffle: bool, seed: int, batches: int | None = None) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        super().__init__(
            range(size),  # type: ignore[arg-type]  # only its length is used
            num_replicas=distributed.get_world_size() if together else 1,
            rank=distributed.get_rank() if together else 0,
            shuffle=shuffle,
            seed=seed,
        )
        self.size = size
        self.batch_sizes = _batch_sizes(self.num_samples, batch_size, even_out=shuffle)
        self.batches = len(self.batch_sizes) if batches is None else batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[BatchRequest]:
        parts: list[Tensor] = []
        for batch in range(self.batches):
            cycle, place = divmod(batch, len(self.batch_sizes))
            if place == 0:
                parts = list(torch.split(self._order(cycle), self.batch_sizes))
            yield BatchRequest(parts[place], derived_seed(self.seed, self.epoch, 1 + batch, self.rank))

    def _order(self, cycle: int) -> Tensor:
        """This process's records in one pass over the data, int64 [num_samples]."""
        return self._order_of_all(cycle)[self.rank :: self.num_replicas]

    def _order_of_all(self, cycle: int) -> Tensor:
        """The records of all processes in turn, int64 [num_samples * num_replicas]; the same in every process."""
        if self.shuffle:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch, 0, cycle))
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.arange(self.size)
        wanted = self.num_samples * self.num_replicas
        return order.repeat(-(-wanted // self.size))[:wanted]


def _batch_sizes(records: int, batch_size: int, *, even_out: bool) -> list[int]:
    sizes = [batch_size] * (records // batch_size)
    if records % batch_size:
        sizes.append(records % batch_size)
    if even_out and len(sizes) > 1 and batch_size > 1 and sizes[-1] == 1:
        both = batch_size + 1
        sizes[-2:] = [both - both // 2, both // 2]
    return sizes


class TensorBatches(Dataset[Batch]):
    """Serves whole batches out of memory.

    Args:
        tensors: The records.
        augmentation: What to do to the images of a batch.
    """

    def __init__(self, tensors: LabelledTensors, augmentation: Augmentation = "none") -> None:
        self.tensors = tensors
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, request: BatchRequest) -> Batch:
        generator = torch.Generator().manual_seed(request.seed)
        pixels = augment(self.tensors.pixels[request.positions], self.augmentation, generator)
        return as_inputs(pixels), self.tensors.labels[request.positions]


def _same(batch: Any) -> Any:
    return batch  # the data set already gives whole batches


def build_loader(
    tensors: LabelledTensors,
    batch_size: int,
    *,
    shuffle: bool,
    augmentation: Augmentation,
    seed: int,
    num_workers: int = 0,
    batches: int | None = None,
    epoch: int = 0,
) -> DataLoader[Batch]:
    """Build a loader of ``(inputs float32 [b, C, S, S] in [0, 1], labels int64 [b])`` batches.

    Args:
        tensors: The records.
        batch_size: Records per batch.
        shuffle: Whether to shuffle anew each epoch.
        augmentation: Augmentation of the images.
        seed: Seed of shuffling and augmentation.
        num_workers: Worker processes; the data is in memory, so 0 is usually fastest.
        batches: Batches per epoch, see :class:`EpochShuffle`.
        epoch: Epoch to start with. Lightning sets the epoch only after worker processes were given their first batches,
            so a resumed training with workers needs it here.

    Raises:
        InputError: If there are no records or the batch size is below one.
    """
    check_loadable(len(tensors), batch_size)
    sampler = EpochShuffle(len(tensors), batch_size, shuffle=shuffle, seed=seed, batches=batches)
    return loader_of_batches(TensorBatches(tensors, augmentation), sampler, epoch=epoch, num_workers=num_workers)


def check_loadable(records: int, batch_size: int) -> None:
    """Make sure that there is something to load.

    Raises:
        InputError: If there are no records or the batch size is below one.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is below one; ask for at least one record per batch")
    if records == 0:
        raise InputError("a split without records cannot be loaded; raise its size")


def loader_of_batches(
    batches: Dataset[Batch], sampler: EpochShuffle, *, epoch: int, num_workers: int
) -> DataLoader[Batch]:
    """A loader over a data set that serves whole batches.

    Args:
        batches: Gives the batch of a :class:`BatchRequest`.
        sampler: Asks for the batches.
        epoch: Epoch to start with.
        num_workers: Worker processes.
    """
    sampler.set_epoch(epoch)
    return DataLoader(
        batches,
        batch_size=None,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_same,
        generator=torch.Generator().manual_seed(sampler.seed),  # else every pass draws from the global generator
    )
