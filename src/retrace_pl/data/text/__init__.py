"""Texts: sources, tokenizers, and the data module of text audits."""

from retrace_pl.data.text.checks import check_text_model
from retrace_pl.data.text.loading import BucketedShuffle, build_text_loader
from retrace_pl.data.text.module import TextUnlearningDataModule
from retrace_pl.data.text.records import LabelledTexts
from retrace_pl.data.text.sources import HuggingFaceTextSource, RawTexts, SourceTexts, TextSource
from retrace_pl.data.text.tokenizer import Encoded, SpecialTokens, TextTokenizer, text_lengths, trim
from retrace_pl.data.text.tokenizer_sources import (
    PretrainedTokenizer,
    TokenizerSource,
    TrainedTokenizer,
    open_tokenizer,
)

__all__ = [
    "BucketedShuffle",
    "Encoded",
    "HuggingFaceTextSource",
    "LabelledTexts",
    "PretrainedTokenizer",
    "RawTexts",
    "SourceTexts",
    "SpecialTokens",
    "TextSource",
    "TextTokenizer",
    "TextUnlearningDataModule",
    "TokenizerSource",
    "TrainedTokenizer",
    "build_text_loader",
    "check_text_model",
    "open_tokenizer",
    "text_lengths",
    "trim",
]
