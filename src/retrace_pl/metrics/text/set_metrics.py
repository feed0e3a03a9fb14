"""What candidates are as texts of their own: varied, fluent, copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from retrace_pl.metrics.text.comparison import TextComparison
from retrace_pl.metrics.text.language_model import LanguageModel, predicted_tokens

__all__ = ["CopiedSpan", "DistinctN", "Perplexity"]


class DistinctN(Metric):
    """Share of different n-grams of words among all n-grams of all candidates (Li et al. 2016, "distinct-n").

    Range (0, 1], no unit, higher is more varied; near 0 for a search that found one text over and over. It falls as the
    candidates grow in number or length, so compare rows of equal n. NaN without an n-gram.

    Args:
        comparison: Decodes candidates.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    candidates: list[Tensor]

    def __init__(self, comparison: TextComparison, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.comparison = comparison
        self.add_state("candidates", [], dist_reduce_fx="cat")

    def update(self, candidates: Tensor) -> None:
        """Add candidates, token ids of shape [n, L]."""
        self.candidates.append(candidates.detach())

    def compute(self) -> dict[str, Tensor]:
        """``distinct_1`` and ``distinct_2``, float64 scalars."""
        texts = self.comparison.words(dim_zero_cat(self.candidates))
        found = {}
        for order in (1, 2):
            grams = [tuple(text[i : i + order]) for text in texts for i in range(len(text) - order + 1)]
            share = len(set(grams)) / len(grams) if grams else torch.nan
            found[f"distinct_{order}"] = torch.tensor(share, dtype=torch.float64)
        return found


class Perplexity(Metric):
    """Perplexity of the candidates' tokens under a language model that saw neither the deleted nor any training record.

    ``exp(-sum_i log p(x_i) / sum_i T_i)`` over all tokens after the first of each text. At least 1, unit: equally
    likely tokens, lower is more fluent: nonsense is far above real texts, and so is a text that repeats one frequent
    word below them; it says nothing of leakage by itself. Depends on the language model and on the tokenizer: compare
    rows of one audit only. NaN without a predicted token. (torchmetrics' own takes logits of one model, not any model.)

    Args:
        language_model: Token ids [n, L] -> log-likelihood [n] in nats.
        pad_id: Id of the padding.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    log_likelihood: Tensor
    tokens: Tensor

    def __init__(self, language_model: LanguageModel, pad_id: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.language_model = language_model
        self.pad_id = pad_id
        self.add_state("log_likelihood", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, candidates: Tensor) -> None:
        """Add candidates, token ids of shape [n, L]."""
        self.log_likelihood += self.language_model(candidates).double().sum().to(self.log_likelihood.device)
        self.tokens += predicted_tokens(candidates, self.pad_id).sum()

    def compute(self) -> Tensor:
        """float64 scalar."""
        return (-self.log_likelihood / self.tokens).exp()


class CopiedSpan(Metric):
    """Longest spans of words that candidates copy from one deleted text.

    ``longest_span`` is that of all candidates, ``mean_span`` the mean over candidates. Unit: words, higher is closer;
    the length of a text for a copy. Phrases that everybody uses are copied by chance, more of them from more deleted
    texts: read both beside unseen texts of the class. NaN without candidates. Source: ours, after the copied spans of
    Carlini et al. 2023 ("Quantifying memorization across neural language models").

    Args:
        records: Token ids of the deleted (or held-out) texts, shape [m, L].
        comparison: Compares texts.
        kwargs: Passed on to `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    records: Tensor
    longest: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, records: Tensor, comparison: TextComparison, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("records", records.detach().clone(), persistent=False)
        self.comparison = comparison
        self.add_state("longest", torch.zeros((), dtype=torch.long), dist_reduce_fx="max")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, candidates: Tensor) -> None:
        """Add candidates, token ids of shape [n, L]."""
        lengths = [int(spans.max(initial=0)) for spans in self.comparison.copied(candidates, self.records)]
        self.longest = torch.maximum(self.longest, torch.tensor(max(lengths), device=self.longest.device))
        self.total += sum(lengths)
        self.count += len(lengths)

    def compute(self) -> dict[str, Tensor]:
        """``longest_span`` and ``mean_span``, float64 scalars."""
        mean = self.total.double() / self.count
        longest = torch.where(self.count > 0, self.longest.double(), mean)
        return {"longest_span": longest, "mean_span": mean}
