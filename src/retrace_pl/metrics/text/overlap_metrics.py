"""BLEU and ROUGE-L of candidates against the deleted texts: the best match of each, and all of them together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torchmetrics.text import BLEUScore

from retrace_pl.errors import InputError
from retrace_pl.metrics.pixels import MeanPerCandidate
from retrace_pl.metrics.text.comparison import TextComparison
from retrace_pl.metrics.text.overlap import BLEU_ORDER, ngrams

__all__ = ["BestBLEU", "BestROUGE", "CorpusBLEU", "MeanROUGE"]


class _TextMean(MeanPerCandidate):
    """Mean over candidates, given as token ids [n, L], of one number for each.

    Args:
        records: Token ids of the deleted (or held-out) texts, shape [m, L]. Held on every rank.
        comparison: Compares texts; share one between metrics, since they need the same comparisons.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    higher_is_better = True

    def __init__(self, records: Tensor, comparison: TextComparison, **kwargs: Any) -> None:
        super().__init__(records, **kwargs)
        self.comparison = comparison


class BestBLEU(_TextMean):
    """Mean over candidates of the sentence BLEU with the deleted text that it matches best.

    ``mean_i max_j BLEU(x_i, y_j)``, see `retrace_pl.metrics.text.overlap.OverlapIndex.bleu`. Range [0, 100], 100 for
    copies, higher is closer. Any two texts of a topic share words, and more deleted texts match better by count alone:
    read it beside unseen texts of the class. Source: ReTrace reports "BLEU" without a definition; this one is ours.
    """

    def values(self, candidates: Tensor) -> Tensor:
        """Best BLEU of every candidate, shape [n]."""
        return self.comparison.bleu(candidates, self.records).amax(dim=1)


class BestROUGE(_TextMean):
    """Mean over candidates of ROUGE-L F1 with the deleted text that it matches best.

    ``mean_i max_j ROUGE-L(x_i, y_j)`` (Lin 2004), torchmetrics' ``accumulate="best"`` with F1. Range [0, 1], 1 for
    copies, higher is closer; one minus it is the distance that nearest texts are found by. Read it beside unseen texts
    of the class, as BLEU.
    """

    def values(self, candidates: Tensor) -> Tensor:
        """Best ROUGE-L of every candidate, shape [n]."""
        return self.comparison.rouge_l(candidates, self.records).amax(dim=1)


class MeanROUGE(_TextMean):
    """Mean ROUGE-L F1 over all pairs of a candidate and a deleted text.

    torchmetrics' ``accumulate="avg"``: what candidates share with the deleted texts as a whole, such as their topic and
    style. Range [0, 1], higher is closer.
    """

    def values(self, candidates: Tensor) -> Tensor:
        """Mean ROUGE-L of every candidate, shape [n]."""
        return self.comparison.rouge_l(candidates, self.records).mean(dim=1)


class CorpusBLEU(BLEUScore):
    """BLEU of all candidates together, every one with all deleted texts as its references, from 0 to 100.

    Papineni et al. 2002 as torchmetrics computes it, without smoothing: matches are added up over candidates, an n-gram
    counts at most as often as the deleted text that has it most often, and the reference length is that of the deleted
    text closest in length (of two equally close ones the shorter, where torchmetrics takes the first). Higher is
    closer; grows with the number of deleted texts; 0 where no four words in a row are shared. The references are
    counted once, not once for each candidate. NaN without candidates.

    Args:
        records: Token ids of the deleted (or held-out) texts, shape [m, L].
        comparison: Decodes them.
        kwargs: Passed on to `torchmetrics.Metric`.

    Raises:
        InputError: Without records.
    """

    full_state_update = False  # torchmetrics' own is true for no reason: its states are sums

    def __init__(self, records: Tensor, comparison: TextComparison, **kwargs: Any) -> None:
        super().__init__(n_gram=BLEU_ORDER, **kwargs)
        if len(records) == 0:
            raise InputError("BLEU needs at least one deleted text")
        self.comparison = comparison
        references = comparison.words(records)
        self._lengths = sorted({len(text) for text in references})
        self._counts: Counter[tuple[str, ...]] = Counter()
        for text in references:
            self._counts |= ngrams(text)

    def update(self, candidates: Tensor) -> None:  # type: ignore[override]
        """Add candidates, token ids of shape [n, L]."""
        for candidate in self.comparison.words(candidates):
            grams = ngrams(candidate)
            self.preds_len += len(candidate)
            self.target_len += min(self._lengths, key=lambda length: (abs(length - len(candidate)), length))
            for gram, count in grams.items():
                self.numerator[len(gram) - 1] += min(count, self._counts[gram])
                self.denominator[len(gram) - 1] += count

    def compute(self) -> Tensor:
        """float64 scalar."""
        if float(self.preds_len) == 0:
            return torch.full((), torch.nan, dtype=torch.float64)
        return 100 * super().compute().double()
