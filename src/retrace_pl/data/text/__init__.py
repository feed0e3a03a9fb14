"""Texts: sources, tokenizers, and the data module of text audits."""

from retrace_pl.data.text.tokenizer import Encoded, SpecialTokens, TextTokenizer, text_lengths, trim
from retrace_pl.data.text.tokenizer_sources import PretrainedTokenizer, TokenizerSource, TrainedTokenizer

__all__ = [
    "Encoded",
    "PretrainedTokenizer",
    "SpecialTokens",
    "TextTokenizer",
    "TokenizerSource",
    "TrainedTokenizer",
    "text_lengths",
    "trim",
]
