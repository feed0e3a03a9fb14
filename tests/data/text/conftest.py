"""A source of short made-up texts of three kinds, and tokenizers that need no download."""

import numpy as np
import pytest

from retrace_pl.data import PretrainedTokenizer, TextSource, TextUnlearningDataModule, TrainedTokenizer
from retrace_pl.data.text import RawTexts, SourceTexts

WORDS = {
    "sea": "the boat sails over waves past harbour and island under a wide sky with gulls",
    "soup": "stir the onion with salt and pepper then add stock and simmer until it is thick",
    "chess": "white moves a knight while black castles and the queen takes the last pawn on board",
}


def made_up(count, seed=0):
    """Texts of 4 to 20 words, all different, with labels 0, 1, 2, 0, ..."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(WORDS)
    words = [text.split() for text in WORDS.values()]
    texts = []
    for index, label in enumerate(labels):
        chosen = rng.choice(words[label], size=rng.integers(3, 20))
        texts.append(f"No. {seed}-{index}: {' '.join(chosen)}")
    return RawTexts(texts, labels.astype(np.int64))


class ListSource(TextSource):
    """Texts in memory; counts how often it is opened."""

    def __init__(self, train, test=None):
        self.train, self.test = train, test
        self.opened = 0

    @property
    def title(self):
        return "lists"

    def open(self):
        self.opened += 1
        return SourceTexts(self.train, self.test, tuple(WORDS))


@pytest.fixture
def text_source():
    def build(count=120, test_count=None):
        return ListSource(made_up(count), None if test_count is None else made_up(test_count, 1))

    return build


@pytest.fixture
def text_module(text_source):
    def build(source=None, **settings):
        settings = {"tokenizer": TrainedTokenizer(300, cache=None), "max_length": 32, "batch_size": 8} | settings
        if not any(name.startswith("forget_") for name in settings):
            settings["forget_class"] = "soup"
        return TextUnlearningDataModule(text_source() if source is None else source, **settings)

    return build


@pytest.fixture
def checkpoint_tokenizer(tmp_path):
    """Builds a folder with the tokenizer of a BERT-like model; settings go to it and None removes a special token."""

    def build(**settings):
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        words = sorted({word for text in WORDS.values() for word in text.split()})
        vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
        backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if settings.pop("marks", True):
            backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        chosen = {name: value for name, value in ({**special, **settings}).items() if value is not None}
        PreTrainedTokenizerFast(tokenizer_object=backend, **chosen).save_pretrained(tmp_path / "checkpoint")
        return PretrainedTokenizer(str(tmp_path / "checkpoint"))

    return build
