"""The n-gram model against its definition."""

import math

import pytest
import torch

from retrace_pl.errors import InputError
from retrace_pl.metrics.text import NGramLanguageModel
from retrace_pl.metrics.text.language_model import predicted_tokens

TEXTS = torch.tensor([[2, 4, 5, 3, 0], [2, 4, 6, 4, 3], [2, 5, 3, 0, 0]])
VOCABULARY = 8


def plain(texts, row, order):
    """Witten-Bell probabilities from lists of contexts and followers."""
    events = []
    for text in texts:
        padded = [None] * order + text
        events += [(tuple(padded[i - order + 1 : i]), padded[i]) for i in range(order + 1, len(padded))]

    def probability(context, token):
        if context is None:
            return 1 / VOCABULARY
        shorter = probability(context[1:] if context else None, token)
        tail = len(context)
        seen = [t for c, t in events if c[len(c) - tail :] == context]
        if not seen:
            return shorter
        kinds = len(set(seen))
        return (seen.count(token) + kinds * shorter) / (len(seen) + kinds)

    padded = [None] * order + row
    return sum(
        math.log(probability(tuple(padded[i - order + 1 : i]), padded[i])) for i in range(order + 1, len(padded))
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_definition(order):
    model = NGramLanguageModel(TEXTS, 0, VOCABULARY, order=order)
    asked = torch.tensor([[2, 4, 5, 3, 0], [2, 7, 6, 5, 4], [2, 4, 6, 4, 3], [2, 0, 0, 0, 0]])
    lists = [[token for token in row.tolist() if token] for row in TEXTS]
    wanted = [plain(lists, [token for token in row.tolist() if token], order) for row in asked]
    torch.testing.assert_close(model(asked), torch.tensor(wanted, dtype=torch.float64))


def test_probabilities_of_all_tokens_add_up_to_one():
    model = NGramLanguageModel(TEXTS, 0, VOCABULARY, order=3)
    start = torch.tensor([[2, 4]]).expand(VOCABULARY, 2)
    rows = torch.cat([start, torch.arange(VOCABULARY)[:, None]], dim=1)
    rest = model(rows) - model(start)
    rest[0] = math.nan  # padding behind a text is no token
    total = float(rest[1:].exp().sum())
    assert total < 1
    assert total > 0.95


def test_seen_texts_are_likelier_than_unseen_ones():
    model = NGramLanguageModel(TEXTS, 0, VOCABULARY, source="three texts")
    seen, unseen = model(torch.tensor([[2, 4, 5, 3, 0], [2, 7, 1, 3, 0]]))
    assert seen > unseen
    assert model.description == "interpolated 3-gram model of three texts"


def test_predicted_tokens():
    assert predicted_tokens(torch.tensor([[2, 4, 3, 0], [2, 0, 0, 0], [0, 0, 0, 0]]), 0).tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("ids", "order", "message"),
    [(TEXTS, 0, "order"), (TEXTS[:0], 2, "at least one text"), (TEXTS + 5, 2, "vocabulary of 8"), (TEXTS, 40, "order")],
)
def test_bad_settings(ids, order, message):
    with pytest.raises(InputError, match=message):
        NGramLanguageModel(ids, 0, VOCABULARY, order=order)
