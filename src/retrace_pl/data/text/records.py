"""Labelled texts in memory, as rows of token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from retrace_pl.data.records import LabelledRecords
from retrace_pl.data.text.tokenizer import text_lengths


@dataclass(frozen=True, eq=False)
class LabelledTexts(LabelledRecords):
    """Texts with their labels, stored as token ids.

    Args:
        tokens: int32 [n, L], padded on the right.
        labels: Class of every record, int64 [n].
        records: Position of every record in the partition of the source it came from, int64 [n].
        pad_id: What fills a row after its text.
    """

    tokens: Tensor
    labels: Tensor
    records: Tensor
    pad_id: int

    @property
    def stored(self) -> Tensor:
        """The token ids, int32 [n, L]."""
        return self.tokens

    @property
    def inputs(self) -> Tensor:
        """The token ids as int64 [n, L], L the module's ``max_length``; a new tensor each time."""
        return self.tokens.to(torch.int64)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text without padding, int64 [n]."""
        return text_lengths(self.tokens, self.pad_id)

    def with_rows(self, stored: Tensor, labels: Tensor, records: Tensor) -> Self:
        """Texts out of other token ids."""
        return type(self)(stored, labels, records, self.pad_id)
