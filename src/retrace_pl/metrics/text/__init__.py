"""What reconstructed texts are worth: metrics of token ids that a tokenizer turns into words.

Words are runs of letters and digits in lower case, the same for every metric. No metric downloads anything.
"""

from retrace_pl.metrics.text.comparison import Decodes, TextComparison
from retrace_pl.metrics.text.domain import TextDomain
from retrace_pl.metrics.text.glossary import TEXTS
from retrace_pl.metrics.text.language_model import LanguageModel, NGramLanguageModel
from retrace_pl.metrics.text.overlap import OverlapIndex
from retrace_pl.metrics.text.overlap_metrics import BestBLEU, BestROUGE, CorpusBLEU, MeanROUGE
from retrace_pl.metrics.text.set_metrics import CopiedSpan, DistinctN, Perplexity
from retrace_pl.metrics.text.spans import SpanIndex, shared_spans
from retrace_pl.metrics.text.words import words

__all__ = [
    "TEXTS",
    "BestBLEU",
    "BestROUGE",
    "CopiedSpan",
    "CorpusBLEU",
    "Decodes",
    "DistinctN",
    "LanguageModel",
    "MeanROUGE",
    "NGramLanguageModel",
    "OverlapIndex",
    "Perplexity",
    "SpanIndex",
    "TextComparison",
    "TextDomain",
    "shared_spans",
    "words",
]
