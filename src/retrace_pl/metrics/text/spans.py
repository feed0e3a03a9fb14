"""Spans of words that texts share, exactly: how long they are, and where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrace_pl.metrics.text.words import word_positions, words

__all__ = ["SpanIndex", "shared_spans"]

Ints = NDArray[np.int64]
_END = -1
"""Stands between texts, and for words that the index does not know."""


class SpanIndex:
    """Texts in which spans of other texts are looked up.

    Args:
        texts: Their words.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._ids: dict[str, int] = {}
        for text in texts:
            for word in text:
                self._ids.setdefault(word, len(self._ids))
        self._flat, _ = self._flatten(texts)

    def match(self, candidates: Sequence[Sequence[str]]) -> list[Ints]:
        """For every word of every candidate, the length of the longest span from it on that one text here holds.

        Spans are grown word by word, those of all candidates and of the index at once. Equal spans share a rank, so a
        step compares numbers and the result is exact; what no candidate shares drops out, which soon is nearly all.

        Args:
            candidates: Their words.

        Returns:
            Lengths in words, one array for each candidate.
        """
        flat, ends = self._flatten(candidates)
        lengths = np.zeros(len(flat), dtype=np.int64)
        here, there = np.flatnonzero(flat >= 0), np.flatnonzero(self._flat >= 0)
        ours, theirs = flat[here], self._flat[there]
        size = 1
        while True:
            known, found = np.isin(ours, theirs), np.isin(theirs, ours)
            here, ours, there, theirs = here[known], ours[known], there[found], theirs[found]
            if not len(here):
                break
            lengths[here] = size
            here, ours = self._grown(flat, here, ours, size)
            there, theirs = self._grown(self._flat, there, theirs, size)
            both = np.concatenate([ours, theirs])
            ranks = np.unique(both, return_inverse=True)[1].astype(np.int64)
            ours, theirs = ranks[: len(ours)], ranks[len(ours) :]
            size += 1
        return [lengths[start:end] for start, end in ends]

    def _grown(self, flat: Ints, starts: Ints, ranks: Ints, size: int) -> tuple[Ints, Ints]:
        """Spans of `size` words with these ranks, each with the next word; those at an end are dropped."""
        following = flat[starts + size]
        kept = following >= 0
        return starts[kept], ranks[kept] * len(self._ids) + following[kept]

    def _flatten(self, texts: Sequence[Sequence[str]]) -> tuple[Ints, list[tuple[int, int]]]:
        """All words as numbers with `_END` after each text, and where each text starts and ends."""
        flat: list[int] = []
        ends = []
        for text in texts:
            start = len(flat)
            flat += [self._ids.get(word, _END) for word in text]
            ends.append((start, len(flat)))
            flat.append(_END)
        return np.asarray(flat, dtype=np.int64), ends


def shared_spans(first: str, second: str, least: int = 2) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where two texts have spans of words in common, for a reader.

    Args:
        first: A text.
        second: Another one.
        least: Shortest span in words; shorter ones are chance.

    Returns:
        Start and end of the stretches in the first and in the second text, in order and without overlaps.
    """
    one, two = words(first), words(second)
    return _stretches(first, one, two, least), _stretches(second, two, one, least)


def _stretches(text: str, own: list[str], other: list[str], least: int) -> list[tuple[int, int]]:
    positions = word_positions(text)
    lengths = SpanIndex([other]).match([own])[0]
    found: list[tuple[int, int]] = []  # first word, and the one behind the last
    for start in np.flatnonzero(lengths >= least).tolist():
        end = start + int(lengths[start])
        if not found or start >= found[-1][1]:
            found.append((start, end))
        elif end > found[-1][1]:  # spans that overlap make one stretch, neighbours do not
            found[-1] = (found[-1][0], end)
    return [(positions[start][0], positions[end - 1][1]) for start, end in found]
