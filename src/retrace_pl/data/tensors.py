"""Labelled records in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LabelledTensors:
    """Inputs with their labels, images stored as bytes.

    Args:
        pixels: uint8 [n, C, S, S].
        labels: Class of every record, int64 [n].
        records: Position of every record in the partition of the source it came from, int64 [n].
    """

    pixels: Tensor
    labels: Tensor
    records: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def inputs(self) -> Tensor:
        """The images as float32 [n, C, S, S] in [0, 1]; a new tensor each time."""
        return as_inputs(self.pixels)

    def subset(self, positions: Tensor) -> LabelledTensors:
        """The records at ``positions`` (int64 [k]) or where ``positions`` is true (bool [n])."""
        return LabelledTensors(self.pixels[positions], self.labels[positions], self.records[positions])

    def of_classes(self, classes: Iterable[int]) -> LabelledTensors:
        """The records of the given classes, in order."""
        return self.subset(torch.isin(self.labels, torch.tensor(sorted(set(classes)), dtype=torch.int64)))


def as_inputs(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1], same shape."""
    return pixels.to(torch.float32).div_(255)
