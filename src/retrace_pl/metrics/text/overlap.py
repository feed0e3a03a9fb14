"""Word overlap of many texts with many records at once: longest common subsequences and clipped n-gram counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLEU_ORDER", "OverlapIndex", "ngrams"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]

BLEU_ORDER = 4
"""Longest n-grams of BLEU."""

_LIMB = 64


def ngrams(text: Sequence[str], order: int = BLEU_ORDER) -> Counter[tuple[str, ...]]:
    """Counts of all n-grams of a text up to an order.

    Args:
        text: Its words.
        order: Largest n.
    """
    return Counter(tuple(text[i : i + n]) for n in range(1, order + 1) for i in range(len(text) - n + 1))


class OverlapIndex:
    """Records with which candidates are compared, all at once for each candidate.

    Args:
        records: Their words.
    """

    def __init__(self, records: Sequence[Sequence[str]]) -> None:
        self.lengths: Ints = np.asarray([len(record) for record in records], dtype=np.int64)
        self._limbs = max(1, -(-int(self.lengths.max(initial=0)) // _LIMB))
        self._records = records
        self._masks: dict[str, tuple[Ints, Bits]] | None = None
        self._grams: dict[tuple[str, ...], tuple[Ints, Ints]] | None = None

    def common_subsequence(self, candidate: Sequence[str]) -> Ints:
        """Length of the longest common subsequence of words with every record, shape [m].

        The bit-parallel recursion of Crochemore et al. 2001 (``V = (V + (V & M)) | (V & ~M)``), over all records at
        once: one bit for each word of a record, and only records that hold the candidate's next word change.

        Args:
            candidate: Its words.
        """
        if self._masks is None:
            self._masks = self._word_masks()
        state = np.full((len(self.lengths), self._limbs), np.iinfo(np.uint64).max, dtype=np.uint64)
        for word in candidate:
            found = self._masks.get(word)
            if found is not None:
                rows, mask = found
                state[rows] = _step(state[rows], mask)
        return np.asarray(np.bitwise_count(~state & self._inside()).sum(axis=1), dtype=np.int64)

    def rouge_l(self, candidate: Sequence[str]) -> Floats:
        """ROUGE-L F1 with every record, ``2 LCS / (|c| + |r|)``, in [0, 1], shape [m]; 0 for texts without words.

        Lin 2004, section 3.1, with equal weights of precision and recall; the same number as torchmetrics' and
        rouge-score's without stemming.

        Args:
            candidate: Its words.
        """
        total = self.lengths + len(candidate)
        common = self.common_subsequence(candidate)
        return np.asarray(2.0 * common / np.maximum(total, 1), dtype=np.float64)

    def bleu(self, candidate: Sequence[str]) -> Floats:
        """Sentence BLEU with every record as the only reference, from 0 to 100, shape [m].

        Papineni et al. 2002 with n-grams up to 4 and the brevity penalty; orders above 1 are smoothed by adding one to
        matches and counts (Lin and Och 2004), because single sentences rarely share four words in a row. 0 without any
        common word. torchmetrics' smoothed score is the same where all four orders match, and 0 everywhere else.

        Args:
            candidate: Its words.
        """
        if not candidate:
            return np.zeros(len(self.lengths))
        matches = self._clipped(candidate)
        counts = np.maximum(len(candidate) - np.arange(BLEU_ORDER), 0).astype(np.float64)
        smooth = np.asarray([0.0] + [1.0] * (BLEU_ORDER - 1))
        precisions = (matches + smooth[:, None]) / (counts + smooth)[:, None]
        with np.errstate(divide="ignore"):
            mean = np.exp(np.log(precisions).mean(axis=0))
        brevity = np.minimum(0.0, 1 - self.lengths / len(candidate))
        return np.asarray(100 * np.exp(brevity) * mean, dtype=np.float64)

    def _clipped(self, candidate: Sequence[str]) -> Floats:
        """Matches of each order, at most as often as a record has them, shape [4, m]."""
        if self._grams is None:
            self._grams = self._gram_counts()
        matches = np.zeros((BLEU_ORDER, len(self.lengths)))
        for gram, count in ngrams(candidate).items():
            found = self._grams.get(gram)
            if found is not None:
                rows, held = found
                matches[len(gram) - 1, rows] += np.minimum(held, count)
        return matches

    def _word_masks(self) -> dict[str, tuple[Ints, Bits]]:
        """Word -> the records that hold it, and there the bits of its positions."""
        places: dict[str, dict[int, list[int]]] = {}
        for row, record in enumerate(self._records):
            for position, word in enumerate(record):
                places.setdefault(word, {}).setdefault(row, []).append(position)
        found = {}
        for word, rows in places.items():
            bits = np.zeros((len(rows), self._limbs), dtype=np.uint64)
            for index, positions in enumerate(rows.values()):
                for position in positions:
                    bits[index, position // _LIMB] |= np.uint64(1) << np.uint64(position % _LIMB)
            found[word] = (np.fromiter(rows, dtype=np.int64, count=len(rows)), bits)
        return found

    def _gram_counts(self) -> dict[tuple[str, ...], tuple[Ints, Ints]]:
        """N-gram -> the records that hold it, and how often."""
        held: dict[tuple[str, ...], dict[int, int]] = {}
        for row, record in enumerate(self._records):
            for gram, count in ngrams(record).items():
                held.setdefault(gram, {})[row] = count
        return {
            gram: (np.fromiter(rows, np.int64, len(rows)), np.fromiter(rows.values(), np.int64, len(rows)))
            for gram, rows in held.items()
        }

    def _inside(self) -> Bits:
        """Ones at the positions that each record has, shape [m, limbs]."""
        left = np.clip(self.lengths[:, None] - _LIMB * np.arange(self._limbs), 0, _LIMB)
        full = np.iinfo(np.uint64).max
        shifted = (np.uint64(1) << np.minimum(left, _LIMB - 1).astype(np.uint64)) - np.uint64(1)
        return np.where(left == _LIMB, np.uint64(full), shifted)


def _step(state: Bits, mask: Bits) -> Bits:
    """One word of the recursion: an addition over all limbs, with carries, then the bits that it must not touch."""
    common = state & mask
    result = np.empty_like(state)
    carry = np.zeros(len(state), dtype=np.uint64)
    for limb in range(state.shape[1]):
        partial = state[:, limb] + common[:, limb]
        total = partial + carry
        carry = ((partial < common[:, limb]) | (total < partial)).astype(np.uint64)
        result[:, limb] = total | (state[:, limb] & ~mask[:, limb])
    return result
