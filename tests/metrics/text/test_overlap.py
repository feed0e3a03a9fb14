"""Overlap of many texts at once against plain implementations and torchmetrics."""

import time

import numpy as np
import pytest
from torchmetrics.functional.text import bleu_score
from torchmetrics.functional.text.rouge import rouge_score

from retrace_pl.metrics.text import OverlapIndex, words


def plain_lcs(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
    for i, one in enumerate(first):
        for j, two in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == two else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def random_texts(rng, count, longest, vocabulary):
    return [[f"w{word}" for word in rng.integers(vocabulary, size=rng.integers(0, longest + 1))] for _ in range(count)]


@pytest.mark.parametrize("longest", [12, 64, 150])  # one machine word, exactly one, several
def test_common_subsequences_equal_the_textbook_table(longest):
    rng = np.random.default_rng(longest)
    records, candidates = random_texts(rng, 25, longest, 9), random_texts(rng, 6, longest, 12)
    index = OverlapIndex([*records, ["w1"] * longest])
    for candidate in [*candidates, ["w1"] * longest]:
        wanted = [plain_lcs(candidate, record) for record in [*records, ["w1"] * longest]]
        assert index.common_subsequence(candidate).tolist() == wanted


def test_rouge_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    records, candidates = random_texts(rng, 12, 30, 20), random_texts(rng, 5, 30, 20)
    index = OverlapIndex(records)
    for candidate in candidates:
        for record, value in zip(records, index.rouge_l(candidate), strict=True):
            wanted = rouge_score(" ".join(candidate), " ".join(record), rouge_keys="rougeL")["rougeL_fmeasure"]
            assert value == pytest.approx(float(wanted), abs=1e-6)


def test_bleu_is_that_of_torchmetrics_where_all_orders_match():
    rng = np.random.default_rng(1)
    base = [f"w{word}" for word in rng.integers(40, size=30)]
    records = [base[:k] + random_texts(rng, 1, 12, 40)[0] for k in range(6, 30, 3)]
    index = OverlapIndex(records)
    for start in (0, 1):
        candidate = base[start:20]
        for record, value in zip(records, index.bleu(candidate), strict=True):
            wanted = 100 * bleu_score([" ".join(candidate)], [[" ".join(record)]], smooth=True)
            if float(wanted) > 0:
                assert value == pytest.approx(float(wanted), rel=1e-5)


def test_bleu_by_hand():
    index = OverlapIndex([["a", "b", "c", "d"], ["x", "y"], ["a", "b", "c", "d", "e", "f", "g", "h"]])
    copy, nothing, half = index.bleu(["a", "b", "c", "d"])
    assert copy == pytest.approx(100)
    assert nothing == 0
    assert half == pytest.approx(100 * np.exp(1 - 8 / 4))  # every n-gram is in the record, which is twice as long
    assert index.bleu(["a", "a"])[0] == pytest.approx(100 * np.exp(1 - 4 / 2) * (0.5 * 0.5) ** 0.25)
    assert index.bleu([]).tolist() == [0, 0, 0]


def test_texts_without_words():
    index = OverlapIndex([[], ["a"]])
    assert index.rouge_l([]).tolist() == [0, 0]
    assert index.rouge_l(["a"]).tolist() == [0, 1]
    assert index.bleu(["a"]).tolist() == [0, 100]


def test_many_records_take_seconds():
    rng = np.random.default_rng(2)
    common = [f"w{word}" for word in range(3000)]
    draw = lambda n: [[common[int(w)] for w in (3000 * rng.random(40) ** 3)] for _ in range(n)]  # noqa: E731
    records, candidates = draw(1000), draw(64)
    start = time.process_time()
    index = OverlapIndex(records)
    for candidate in candidates:
        index.rouge_l(candidate)
    assert time.process_time() - start < 5


def test_words_are_letters_and_digits_in_lower_case():
    assert words("Oil's up 3.5%, says_Reuters - ÉTÉ") == ["oil", "s", "up", "3", "5", "says", "reuters", "été"]
    assert words("İstanbul, -- ok") == ["İstanbul".lower(), "ok"]  # longer in lower case, and still one word
