"""Labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from retrace_pl.data.records import LabelledRecords


@dataclass(frozen=True, eq=False)
class LabelledTensors(LabelledRecords):
    """Images with their labels, stored as bytes.

    Args:
        pixels: uint8 [n, C, S, S].
        labels: Class of every record, int64 [n].
        records: Position of every record in the partition of the source it came from, int64 [n].
    """

    pixels: Tensor
    labels: Tensor
    records: Tensor

    @property
    def stored(self) -> Tensor:
        """The pixels, uint8 [n, C, S, S]."""
        return self.pixels

    @property
    def inputs(self) -> Tensor:
        """The images as float32 [n, C, S, S] in [0, 1]; a new tensor each time."""
        return as_inputs(self.pixels)

    def with_rows(self, stored: Tensor, labels: Tensor, records: Tensor) -> Self:
        """Images out of other pixels."""
        return type(self)(stored, labels, records)


def as_inputs(pixels: Tensor) -> Tensor:
    """Bytes to float32 in [0, 1], same shape."""
    return pixels.to(torch.float32).div_(255)
