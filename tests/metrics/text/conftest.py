"""Short news and a tokenizer of whole words, which is all that the metrics need."""

from types import SimpleNamespace

import pytest
import torch


class WordTokenizer:
    """Every word of some texts has an id; pad 0, unknown 1, start 2, end 3."""

    pad_id, bos_id, eos_id = 0, 2, 3

    def __init__(self, texts, length):
        self.length = length
        self.names = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            *dict.fromkeys(word for text in texts for word in text.split()),
        ]
        self.ids = {name: index for index, name in enumerate(self.names)}
        self.vocab_size = len(self.names)

    def encode(self, texts):
        rows = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            content = [self.ids.get(word, 1) for word in text.split()][: self.length - 2]
            ids = [self.bos_id, *content, self.eos_id]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    def decode(self, ids):
        return [" ".join(self.names[token] for token in row if token > 3) for row in ids.tolist()]


DELETED = [
    "The central bank raised its main interest rate by a quarter point on Tuesday .",
    "Shares of the airline fell sharply after it warned of higher fuel costs .",
    "Oil prices climbed above fifty dollars a barrel as supplies tightened .",
    "The retailer said quarterly profit rose on strong holiday sales .",
]
HELDOUT = [
    "The software maker said quarterly profit rose on strong sales of servers .",
    "The central bank left its main interest rate unchanged on Wednesday .",
    "Oil prices fell as traders expected warmer weather .",
]
OTHER = ["The striker scored twice as the home side won the cup final .", "A comet passed close to the sun on Friday ."]
PUBLIC = [
    "The retailer said quarterly profit rose in the first quarter .",
    "Shares of the bank fell after it warned of losses .",
    *OTHER,
]


@pytest.fixture(scope="session")
def tokenizer():
    return WordTokenizer([*DELETED, *HELDOUT, *OTHER, *PUBLIC, "one two three four five six"], 24)


@pytest.fixture(scope="session")
def news():
    """Deleted texts, unseen ones of their class, other ones and public ones."""
    return SimpleNamespace(deleted=DELETED, heldout=HELDOUT, other=OTHER, public=PUBLIC)
