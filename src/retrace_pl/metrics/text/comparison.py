"""Decodes token ids and compares texts with one another; remembers the last comparisons, because metrics share them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from retrace_pl.metrics.text.overlap import OverlapIndex
from retrace_pl.metrics.text.spans import SpanIndex
from retrace_pl.metrics.text.words import words

__all__ = ["Decodes", "TextComparison"]

T = TypeVar("T")
_KEPT = 12
"""Results that are remembered."""


class Decodes(Protocol):
    """The part of a tokenizer that the metrics need.

    Attributes:
        pad_id: Id of the padding.
        bos_id: Id that starts a text.
        eos_id: Id that ends a text.
        vocab_size: Number of ids.
    """

    @property
    def pad_id(self) -> int:
        """Id of the padding."""

    @property
    def bos_id(self) -> int:
        """Id that starts a text."""

    @property
    def eos_id(self) -> int:
        """Id that ends a text."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def decode(self, ids: Tensor) -> list[str]:
        """Texts of token ids [n, L], without special tokens."""


class TextComparison:
    """Compares texts given as token ids [n, L]; everything is computed on the CPU.

    Args:
        tokenizer: Turns ids into texts.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self.tokenizer = tokenizer
        self._memory: OrderedDict[str, object] = OrderedDict()

    def texts(self, ids: Tensor) -> list[str]:
        """The texts themselves.

        Args:
            ids: Shape [n, L].
        """
        return self._remembered("texts", lambda: self.tokenizer.decode(ids.detach().cpu()), ids)

    def words(self, ids: Tensor) -> list[list[str]]:
        """The words of every text, see `retrace_pl.metrics.text.words.words`.

        Args:
            ids: Shape [n, L].
        """
        return self._remembered("words", lambda: [words(text) for text in self.texts(ids)], ids)

    def rouge_l(self, candidates: Tensor, records: Tensor) -> Tensor:
        """ROUGE-L F1 of all pairs, float64 [n, m] in [0, 1].

        Args:
            candidates: Shape [n, L].
            records: Shape [m, L].
        """
        return self._matrix("rouge_l", candidates, records)

    def bleu(self, candidates: Tensor, records: Tensor) -> Tensor:
        """Smoothed sentence BLEU of all pairs, float64 [n, m], 0 to 100.

        Args:
            candidates: Shape [n, L].
            records: Shape [m, L].
        """
        return self._matrix("bleu", candidates, records)

    def copied(self, candidates: Tensor, records: Tensor) -> list[np.ndarray]:
        """For every word of every candidate, the longest span from it on that one record holds, in words.

        Args:
            candidates: Shape [n, L].
            records: Shape [m, L].
        """
        index = self._remembered("spans", lambda: SpanIndex(self.words(records)), records)
        return self._remembered("copied", lambda: index.match(self.words(candidates)), candidates, records)

    def _matrix(self, kind: str, candidates: Tensor, records: Tensor) -> Tensor:
        def compute() -> Tensor:
            index = self._remembered("overlap", lambda: OverlapIndex(self.words(records)), records)
            compare = index.rouge_l if kind == "rouge_l" else index.bleu
            return torch.from_numpy(np.stack([compare(candidate) for candidate in self.words(candidates)]))

        return self._remembered(kind, compute, candidates, records)

    def _remembered(self, kind: str, compute: Callable[[], T], *tensors: Tensor) -> T:
        """A result by the content of what it is computed from; only the latest ones are kept."""
        digest = hashlib.sha256(kind.encode())
        for tensor in tensors:
            digest.update(f"{list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().to(torch.int64).contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key not in self._memory:
            self._memory[key] = compute()
            while len(self._memory) > _KEPT:
                self._memory.popitem(last=False)
        self._memory.move_to_end(key)
        return self._memory[key]  # type: ignore[return-value]
