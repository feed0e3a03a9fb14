"""Metrics of candidates given as token ids: known texts must come back as numbers; batches and ranks add up."""

import copy
import math

import pytest
import torch
from torchmetrics.functional.text import bleu_score
from torchmetrics.functional.text.rouge import rouge_score

from retrace_pl.errors import InputError
from retrace_pl.metrics.text import (
    BestBLEU,
    BestROUGE,
    CopiedSpan,
    CorpusBLEU,
    DistinctN,
    MeanROUGE,
    NGramLanguageModel,
    Perplexity,
    TextComparison,
    words,
)


@pytest.fixture(scope="module")
def comparison(tokenizer):
    return TextComparison(tokenizer)


@pytest.fixture(scope="module")
def metrics(tokenizer, comparison, news):
    records = tokenizer.encode(news.deleted)
    model = NGramLanguageModel(tokenizer.encode(news.public), 0, tokenizer.vocab_size)
    return {
        "bleu": BestBLEU(records, comparison),
        "bleu_corpus": CorpusBLEU(records, comparison),
        "rouge_l": BestROUGE(records, comparison),
        "rouge_l_corpus": MeanROUGE(records, comparison),
        "spans": CopiedSpan(records, comparison),
        "distinct": DistinctN(comparison),
        "perplexity": Perplexity(model, 0),
    }


def measured(metrics, *batches):
    found = {}
    for name, metric in copy.deepcopy(metrics).items():
        for batch in batches:
            metric.update(batch)
        value = metric.compute()
        found |= value if isinstance(value, dict) else {name: value}
    return {name: float(value) for name, value in found.items()}


def test_copies_are_perfect(metrics, tokenizer, news):
    found = measured(metrics, tokenizer.encode(news.deleted))
    assert found["bleu"] == pytest.approx(100)
    assert found["bleu_corpus"] == pytest.approx(100)
    assert found["rouge_l"] == 1.0
    assert found["longest_span"] == max(len(words(text)) for text in news.deleted)
    assert found["mean_span"] == sum(len(words(text)) for text in news.deleted) / 4


def test_unseen_texts_of_the_class_come_next_and_other_classes_last(metrics, tokenizer, news):
    copies, unseen, others = (
        measured(metrics, tokenizer.encode(texts)) for texts in (news.deleted, news.heldout, news.other)
    )
    for name in ("bleu", "rouge_l", "rouge_l_corpus", "longest_span", "mean_span", "bleu_corpus"):
        assert others[name] < unseen[name] < copies[name] + 1e-9, name


def test_values_are_those_of_torchmetrics(metrics, tokenizer, news):
    found = measured(metrics, tokenizer.encode(news.heldout))
    plain = lambda texts: [" ".join(words(text)) for text in texts]  # noqa: E731
    candidates, references = plain(news.heldout), plain(news.deleted)
    ordered = sorted(references, key=lambda text: len(text.split()))  # of two equally close lengths the shorter counts
    corpus = bleu_score(candidates, [ordered] * len(candidates))
    assert found["bleu_corpus"] == pytest.approx(100 * float(corpus), rel=1e-5)
    for name, accumulate in (("rouge_l", "best"), ("rouge_l_corpus", "avg")):
        pairs = [
            [float(rouge_score(one, two, rouge_keys="rougeL")["rougeL_fmeasure"]) for two in references]
            for one in candidates
        ]
        values = [max(row) if accumulate == "best" else sum(row) / len(row) for row in pairs]
        assert found[name] == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_distinct_n_by_hand(comparison, tokenizer):
    metric = DistinctN(comparison)
    metric.update(tokenizer.encode(["one two one", "two one"]))
    found = metric.compute()
    assert float(found["distinct_1"]) == 2 / 5
    assert float(found["distinct_2"]) == 2 / 3  # "one two", "two one", "two one"
    empty = DistinctN(comparison)
    empty.update(tokenizer.encode([""]))
    assert bool(empty.compute()["distinct_1"].isnan())


def test_perplexity_of_even_odds_is_the_number_of_choices(tokenizer):
    metric = Perplexity(lambda ids: -(((ids != 0).sum(dim=1) - 1) * torch.log(torch.tensor(7.0))), 0)
    for text in ("one two", "one two three four"):
        metric.update(tokenizer.encode([text]))
    assert float(metric.compute()) == pytest.approx(7, rel=1e-5)


def test_nonsense_is_more_perplexing_than_text(metrics, tokenizer, news):
    known = measured(metrics, tokenizer.encode(news.public))["perplexity"]
    shuffled = [" ".join(reversed(text.split())) for text in news.public]
    assert 1 <= known < measured(metrics, tokenizer.encode(shuffled))["perplexity"]


def test_batches_and_ranks_add_up(metrics, tokenizer, news):
    ids = tokenizer.encode([*news.heldout, *news.other, ""])
    whole = measured(metrics, ids)
    assert measured(metrics, ids[:2], ids[2:3], ids[3:]) == pytest.approx(whole, nan_ok=True)
    for name, metric in metrics.items():
        first, second, both = (copy.deepcopy(metric) for _ in range(3))
        for part in (ids[:2], ids[2:]):
            both.update(part)
        first.update(ids[:2])
        second.update(ids[2:])
        first.merge_state(second)
        torch.testing.assert_close(first.compute(), both.compute(), msg=name)


def test_candidates_trimmed_to_their_longest_text(metrics, tokenizer, news):
    ids = tokenizer.encode(news.other)
    assert measured(metrics, ids[:, :15]) == measured(metrics, ids)


def test_empty_candidates_and_no_record(metrics, comparison, tokenizer):
    found = measured(metrics, torch.zeros(2, 24, dtype=torch.int64))
    assert math.isnan(found["bleu_corpus"])
    assert math.isnan(found["perplexity"])
    assert found["rouge_l"] == found["bleu"] == found["longest_span"] == 0
    with pytest.raises(InputError, match="at least one deleted text"):
        CorpusBLEU(tokenizer.encode([]), comparison)


def test_equal_questions_are_answered_once(tokenizer, news):
    asked = []

    class Counting:
        def decode(self, ids):
            asked.append(len(ids))
            return tokenizer.decode(ids)

    comparison = TextComparison(Counting())
    candidates, records = tokenizer.encode(news.other), tokenizer.encode(news.deleted)
    first = comparison.rouge_l(candidates, records)
    torch.testing.assert_close(first, comparison.rouge_l(candidates.clone(), records.clone()))
    comparison.bleu(candidates, records)
    assert asked == [len(news.deleted), len(news.other)]
    comparison.rouge_l(candidates.flip(0), records)
    assert asked == [len(news.deleted), len(news.other), len(news.other)]
