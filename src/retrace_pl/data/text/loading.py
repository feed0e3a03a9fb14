"""Loaders of texts: batches as long as their longest text, and in training made of texts of similar length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from retrace_pl.data.loading import (
    Batch,
    BatchRequest,
    EpochShuffle,
    check_loadable,
    derived_seed,
    loader_of_batches,
)
from retrace_pl.data.text.records import LabelledTexts
from retrace_pl.data.text.tokenizer import trim

_BATCH_ORDER = 1  # stream of the order of batches, beside that of the records


class BucketedShuffle(EpochShuffle):
    """Shuffles anew each epoch, into batches of texts of similar length.

    Records are shuffled; every so many batches' worth of them are sorted by length, cut into batches, and all batches
    of the epoch are shuffled again. What is sorted together is at most a quarter of the epoch, so that batches differ
    from epoch to epoch. Each process gets its share of the same stretch, so the processes of a step have texts of
    similar length, too. Otherwise as :class:`EpochShuffle`: the batches of an epoch are a function of (seed, epoch).

    Args:
        lengths: Tokens of each record, int64 [n].
        batch_size: Records per batch and process.
        seed: Seed of both shuffles.
        bucket_batches: Batches whose records are sorted together; 1 leaves the shuffle as it is.
        batches: Number of batches per epoch, as of :class:`EpochShuffle`.
    """

    def __init__(
        self, lengths: Tensor, batch_size: int, *, seed: int, bucket_batches: int, batches: int | None = None
    ) -> None:
        super().__init__(len(lengths), batch_size, shuffle=True, seed=seed, batches=batches)
        self.lengths = lengths
        self.full = sum(size == batch_size for size in self.batch_sizes)  # all others come last
        self.step = batch_size * self.num_replicas
        self.bucket_batches = max(1, min(bucket_batches, self.full // 4))

    def _order_of_all(self, cycle: int) -> Tensor:
        order = super()._order_of_all(cycle)
        if self.bucket_batches == 1:
            return order
        stretches = torch.split(order, self.step * self.bucket_batches)
        order = torch.cat([stretch[torch.argsort(self.lengths[stretch], stable=True)] for stretch in stretches])
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch, 0, cycle, _BATCH_ORDER))
        whole, rest = order[: self.full * self.step].view(self.full, self.step), order[self.full * self.step :]
        return torch.cat([whole[torch.randperm(self.full, generator=generator)].flatten(), rest])


class TokenBatches(Dataset[Batch]):
    """Serves whole batches out of memory, without the columns that hold nothing but padding.

    Args:
        texts: The records.
    """

    def __init__(self, texts: LabelledTexts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, request: BatchRequest) -> Batch:
        tokens = trim(self.texts.tokens[request.positions], self.texts.pad_id)
        return tokens.to(torch.int64), self.texts.labels[request.positions]


def build_text_loader(
    texts: LabelledTexts,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    bucket_batches: int = 1,
    num_workers: int = 0,
    batches: int | None = None,
    epoch: int = 0,
) -> DataLoader[Batch]:
    """Build a loader of ``(token ids int64 [b, longest text of the batch], labels int64 [b])`` batches.

    Args:
        texts: The records.
        batch_size: Records per batch.
        shuffle: Whether to shuffle anew each epoch, by length; otherwise the order is kept.
        seed: Seed of shuffling.
        bucket_batches: Batches whose records are sorted together, see :class:`BucketedShuffle`.
        num_workers: Worker processes; the data is in memory, so 0 is usually fastest.
        batches: Batches per epoch, see :class:`EpochShuffle`.
        epoch: Epoch to start with.

    Raises:
        InputError: If there are no records or the batch size is below one.
    """
    check_loadable(len(texts), batch_size)
    sampler = (
        BucketedShuffle(texts.lengths, batch_size, seed=seed, bucket_batches=bucket_batches, batches=batches)
        if shuffle
        else EpochShuffle(len(texts), batch_size, shuffle=False, seed=seed, batches=batches)
    )
    return loader_of_batches(TokenBatches(texts), sampler, epoch=epoch, num_workers=num_workers)
