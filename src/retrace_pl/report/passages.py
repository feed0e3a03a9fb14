"""Candidate texts beside their nearest deleted texts, cut into parts that both share and parts that they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrace_pl.metrics.text import OverlapIndex, SpanIndex, shared_spans, words

__all__ = ["Part", "Passage", "pair_lines", "passage", "passage_pair"]

LONGEST = 1200
"""Characters of a text that are shown, at most."""


@dataclass(frozen=True)
class Part:
    """A stretch of a text, and whether the other text of its pair has the same words there."""

    text: str
    shared: bool


@dataclass(frozen=True)
class Passage:
    """A text in parts.

    Args:
        parts: The stretches, in order; none for an empty text.
        label: What the text is, for people who cannot see where it stands.
    """

    parts: tuple[Part, ...]
    label: str


def passage(text: str, label: str, spans: Sequence[tuple[int, int]] = ()) -> Passage:
    """A text with some spans marked as shared; a very long one is cut.

    Args:
        text: The text as it is; whoever shows it escapes it.
        label: What it is.
        spans: Start and end of each shared stretch, in order and without overlaps.
    """
    shown = text[:LONGEST]
    parts, done = [], 0
    for start, end in spans:
        parts += [Part(shown[done:start], False), Part(shown[start:end], True)]
        done = min(end, len(shown))
    parts.append(Part(shown[done:] + ("…" if len(text) > len(shown) else ""), False))
    return Passage(tuple(part for part in parts if part.text), label)


def passage_pair(candidate: str, nearest: str, labels: tuple[str, str]) -> tuple[Passage, Passage]:
    """A candidate and its nearest deleted text, with spans of two and more words that both have marked.

    Args:
        candidate: The candidate.
        nearest: The deleted text.
        labels: What each of them is.
    """
    ours, theirs = shared_spans(candidate, nearest)
    return passage(candidate, labels[0], ours), passage(nearest, labels[1], theirs)


def pair_lines(candidate: str, nearest: str) -> list[str]:
    """Captions of a pair: its ROUGE-L F1, and the longest span that both have where it is longer than a word."""
    one, two = words(candidate), words(nearest)
    lines = [f"ROUGE-L {float(OverlapIndex([two]).rouge_l(one)[0]):.2f}"]
    longest = int(SpanIndex([two]).match([one])[0].max(initial=0))
    return [*lines, f"{longest} words in a row"] if longest > 1 else lines
