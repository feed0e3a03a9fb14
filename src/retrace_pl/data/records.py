"""Labelled records in memory, whatever they are records of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from hashlib import blake2b
from typing import Self

import torch
from torch import Tensor


class LabelledRecords(ABC):
    """Records with their classes; subclasses say how they are stored and what the models are given.

    Attributes:
        labels: Class of every record, int64 [n].
        records: Position of every record in the partition of the source it came from, int64 [n].
    """

    labels: Tensor
    records: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def stored(self) -> Tensor:
        """What is kept in memory, one row per record [n, ...]; it decides the inputs."""

    @property
    @abstractmethod
    def inputs(self) -> Tensor:
        """What the models are given [n, ...]; a new tensor each time."""

    @abstractmethod
    def with_rows(self, stored: Tensor, labels: Tensor, records: Tensor) -> Self:
        """Records of the same kind out of other rows."""

    def subset(self, positions: Tensor) -> Self:
        """The records at ``positions`` (int64 [k]) or where ``positions`` is true (bool [n])."""
        return self.with_rows(self.stored[positions], self.labels[positions], self.records[positions])

    def of_classes(self, classes: Iterable[int]) -> Self:
        """The records of the given classes, in order."""
        return self.subset(torch.isin(self.labels, torch.tensor(sorted(set(classes)), dtype=torch.int64)))

    def merged(self, other: Self) -> Self:
        """These records and others of the same partition, in the order of the source."""
        records = torch.cat([self.records, other.records])
        order = torch.argsort(records)
        stored, labels = torch.cat([self.stored, other.stored]), torch.cat([self.labels, other.labels])
        return self.with_rows(stored[order], labels[order], records[order])

    def fingerprints(self) -> list[bytes]:
        """A 128-bit hash of each stored row; records with equal hashes are copies, whatever their labels."""
        return [blake2b(row.tobytes(), digest_size=16).digest() for row in self.stored.numpy()]
