"""Spans that texts share, against plain search."""

import numpy as np
import pytest

from retrace_pl.metrics.text import SpanIndex, shared_spans


def plain_match(candidate, texts):
    """Longest span from every word on that some text holds, by trying them all."""
    found = []
    for start in range(len(candidate)):
        best = 0
        for text in texts:
            for place in range(len(text)):
                size = 0
                while (
                    start + size < len(candidate)
                    and place + size < len(text)
                    and candidate[start + size] == text[place + size]
                ):
                    size += 1
                best = max(best, size)
        found.append(best)
    return found


def test_equals_plain_search():
    rng = np.random.default_rng(0)
    draw = lambda n, v: [[f"w{w}" for w in rng.integers(v, size=rng.integers(0, 15))] for _ in range(n)]  # noqa: E731
    texts, candidates = draw(12, 4), draw(20, 5)
    for candidate, lengths in zip(candidates, SpanIndex(texts).match(candidates), strict=True):
        assert lengths.tolist() == plain_match(candidate, texts)


def test_spans_do_not_run_across_texts():
    index = SpanIndex([["a", "b"], ["c", "d"]])
    assert index.match([["a", "b", "c", "d"], ["b", "c"], []])[0].tolist() == [2, 1, 2, 1]
    assert index.match([["b", "c"]])[0].tolist() == [1, 1]
    assert SpanIndex([]).match([["a"]])[0].tolist() == [0]


def test_shared_spans_are_places_in_both_texts():
    first = "Yesterday, the central bank raised rates; nobody knew why."
    second = "THE CENTRAL BANK RAISED - rates! Nobody cared"
    one, two = shared_spans(first, second)
    assert [first[start:end] for start, end in one] == ["the central bank raised rates; nobody"]
    assert [second[start:end] for start, end in two] == ["THE CENTRAL BANK RAISED - rates! Nobody"]


@pytest.mark.parametrize("least", [1, 2, 3])
def test_short_spans_are_chance(least):
    one, two = shared_spans("a b x c y", "c a b", least)
    wanted = {1: ["a b", "c"], 2: ["a b"], 3: []}[least]
    assert ["a b x c y"[start:end] for start, end in one] == wanted
    assert ["c a b"[start:end] for start, end in two] == ({1: ["c", "a b"], 2: ["a b"], 3: []}[least])


def test_overlapping_spans_are_marked_once():
    one, _ = shared_spans("a b c", "a b - b c")
    assert one == [(0, 5)]
    one, _ = shared_spans("a b c d", "c d - a b")
    assert one == [(0, 3), (4, 7)]
    assert shared_spans("", "a b") == ([], [])
