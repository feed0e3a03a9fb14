"""Texts as the evaluation sees them."""

from types import SimpleNamespace

import pytest
import torch

from retrace_pl.errors import InputError
from retrace_pl.metrics import Domain, glossary_of
from retrace_pl.metrics.text import TextDomain


@pytest.fixture(scope="module")
def split(tokenizer, news):
    texts = {"public": news.public, "evaluator": [*news.heldout, *news.other]}
    return lambda name: SimpleNamespace(inputs=tokenizer.encode(texts[name]))


@pytest.fixture(scope="module")
def domain(tokenizer, split):
    return TextDomain(tokenizer).fitted(split)


def test_is_a_domain_whose_metrics_all_have_words(domain):
    assert isinstance(domain, Domain)
    words = glossary_of(domain.facts())
    assert set(words.metrics) == {*domain.metric_names, "score"}
    assert {words.closeness, domain.success_metric, *words.columns, *words.summary} <= set(words.metrics)
    named = {floor for metric in words.metrics.values() for floor in metric.floors}
    assert named == set(words.floors)
    assert named >= {f"heldout_{name}" for name in domain.heldout_metrics}
    assert words.metrics[domain.success_metric].found
    assert words.metrics["sr_verbatim"].found


def test_nearest_is_one_minus_rouge(domain, tokenizer, news):
    candidates, records = tokenizer.encode([news.heldout[1], news.deleted[2], ""]), tokenizer.encode(news.deleted)
    nearest = domain.nearest(candidates, records)
    assert nearest.position.tolist()[:2] == [0, 2]
    assert nearest.distance[1:].tolist() == [0.0, 1.0]
    torch.testing.assert_close(nearest.distance, domain.distances(candidates, records).amin(dim=1))
    torch.testing.assert_close(domain.closeness(nearest.distance), 1 - nearest.distance)


def test_success_needs_as_much_overlap_as_deleted_texts_have(domain, tokenizer, news):
    deleted = tokenizer.encode([news.deleted[0], news.heldout[1], news.deleted[2]])
    threshold = domain.success_threshold(deleted, torch.tensor([0, 0, 1]))
    pair = domain.distances(deleted[:1], deleted[1:2])
    assert threshold == pytest.approx(float(pair))
    found = domain.successes(tokenizer.encode([news.deleted[0], news.other[0]]), deleted, threshold)
    assert found["sr_rouge"].tolist() == [True, False]
    assert domain.success_threshold(deleted, torch.tensor([0, 1, 2])) is None
    assert set(domain.successes(deleted, deleted, None)) == {"sr_verbatim"}


def test_verbatim_copies_hold_a_span_that_is_not_public(domain, tokenizer, news):
    records = tokenizer.encode(news.deleted)
    candidates = [
        "one two main interest rate by a quarter point three",  # seven words of the first deleted text
        "one two interest rate by a quarter three",  # only five
        "one The retailer said quarterly profit rose two",  # six words that a public text holds too
        "one The retailer said quarterly profit rose on strong two",  # and eight that none holds
        *news.heldout,
    ]
    hits = domain.verbatim(tokenizer.encode(candidates), records).tolist()
    assert hits == [True, False, False, True, True, False, False]  # an unseen text has six words in common by chance
    with pytest.raises(InputError, match="fitted"):
        TextDomain(tokenizer).verbatim(records, records)
    strict = TextDomain(tokenizer, span_words=8)
    assert (
        strict.fitted(lambda _: SimpleNamespace(inputs=tokenizer.encode(news.public))).verbatim(records, records).all()
    )


def test_fitting_counts_the_evaluators_texts_once(domain, tokenizer, split, news):
    bare = TextDomain(tokenizer)
    assert bare.facts() == {"domain": "text", "span_words": 6, "perplexity_under": None}
    assert "perplexity" not in bare.input_metrics(tokenizer.encode(news.deleted), None)
    fitted = bare.fitted(split)
    assert bare.fitted(split) is fitted
    assert fitted.facts()["perplexity_under"] == "interpolated 3-gram model of the evaluator's texts"
    own = TextDomain(tokenizer, language_model=lambda ids: torch.zeros(len(ids))).fitted(split)
    assert own.facts()["perplexity_under"] == "function"


def test_floors(domain, tokenizer, news):
    deleted, labels = tokenizer.encode(news.deleted), torch.zeros(4, dtype=torch.int64)
    found = domain.floors(deleted, labels, None, None, tokenizer.encode(news.other))
    between = domain.distances(deleted, deleted).fill_diagonal_(2).amin(dim=1)
    assert found["deleted_rouge_l"] == pytest.approx(1 - float(between.mean()))
    best = domain.comparison.rouge_l(tokenizer.encode(news.other), deleted).amax(dim=1)
    assert found["other_rouge_l"] == pytest.approx(float(best.mean()))
    assert domain.floors(deleted[:1], labels[:1], None, None, None) == {"deleted_rouge_l": None, "other_rouge_l": None}


def test_calibration_inputs_are_no_texts_but_look_like_them(domain, tokenizer, news):
    real = tokenizer.encode([*news.public, *news.heldout])
    found = domain.calibration_inputs(real, 50, len)
    again = domain.calibration_inputs(real, 50, len)
    assert list(found) == ["noise", "mixup"]
    lengths = {int((row != 0).sum()) for row in real}
    for name, rows in found.items():
        assert torch.equal(rows, again[name])
        assert rows.shape == (50, real.shape[1])
        assert bool((rows[:, 0] == 2).all())
        assert (rows == 3).sum(dim=1).tolist() == [1] * 50
    assert {int((row != 0).sum()) for row in found["noise"]} <= lengths
    halves = [text.split() for text in (*news.public, *news.heldout)]
    mixed = tokenizer.decode(found["mixup"])[0].split()
    assert any(mixed[: len(half) // 2] == half[: len(half) // 2] for half in halves)


def test_odd_settings(tokenizer):
    with pytest.raises(InputError, match="span_words"):
        TextDomain(tokenizer, span_words=0)
    with pytest.raises(InputError, match="two real ones"):
        TextDomain(tokenizer).calibration_inputs(tokenizer.encode(["one"]), 2, len)
