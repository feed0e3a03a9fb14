"""Texts as an evaluation sees them: token ids [n, L] that a tokenizer turns into words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from retrace_pl.errors import InputError
from retrace_pl.metrics.distances import Nearest
from retrace_pl.metrics.features import FeatureFID
from retrace_pl.metrics.manifold import PrecisionRecall
from retrace_pl.metrics.mmd import FeatureMMD
from retrace_pl.metrics.text.comparison import Decodes, TextComparison
from retrace_pl.metrics.text.glossary import TEXTS
from retrace_pl.metrics.text.language_model import LanguageModel, NGramLanguageModel
from retrace_pl.metrics.text.overlap_metrics import BestBLEU, BestROUGE, CorpusBLEU, MeanROUGE
from retrace_pl.metrics.text.set_metrics import CopiedSpan, DistinctN, Perplexity
from retrace_pl.metrics.text.synthetic import random_tokens, spliced

__all__ = ["TextDomain"]

_MAX_PAIRED = 2000
"""Deleted texts that are compared with one another, and their number of other texts, at most: a quadratic cost."""
_MAX_OTHER = 200


class TextDomain:
    """Texts [n, L] as token ids; the distance of two is one minus their ROUGE-L F1, in [0, 1].

    Args:
        tokenizer: Turns ids into texts.
        language_model: Judges how fluent candidates are; must not have seen what the audited models saw. By default an
            n-gram model of the evaluator split, once `fitted`; before that perplexity does not apply.
        span_words: Shortest span in words that counts as a verbatim copy, at least 1.

    Raises:
        InputError: If `span_words` is below 1.
    """

    glossary = TEXTS
    metric_names: tuple[str, ...] = (
        "bleu",
        "bleu_corpus",
        "rouge_l",
        "rouge_l_corpus",
        "mmd",
        "fid_oracle",
        "sr_oracle",
        "sr_original",
        "sr_rouge",
        "sr_verbatim",
        "longest_span",
        "mean_span",
        "label_kl",
        "precision",
        "recall",
        "distinct_1",
        "distinct_2",
        "perplexity",
    )
    success_metric = "sr_rouge"
    record_metric = "relative_nearest_rouge_l"
    heldout_metrics: tuple[str, ...] = tuple(
        name for name in metric_names if name not in ("sr_oracle", "sr_original", "label_kl")
    )

    def __init__(self, tokenizer: Decodes, language_model: LanguageModel | None = None, span_words: int = 6) -> None:
        if span_words < 1:
            raise InputError(f"span_words must be at least 1, got {span_words}")
        self.tokenizer = tokenizer
        self.language_model = language_model
        self.span_words = span_words
        self.comparison = TextComparison(tokenizer)
        self._public: Tensor | None = None
        self._fitted: TextDomain | None = None

    def facts(self) -> dict[str, Any]:
        """Name of the domain, words of a verbatim copy, and the language model behind the perplexity, or None."""
        model = self.language_model
        named = None if model is None else getattr(model, "description", type(model).__name__)
        return {"domain": TEXTS.domain, "span_words": self.span_words, "perplexity_under": named}

    def fitted(self, split: Callable[[str], Any]) -> TextDomain:
        """The domain with the public texts, and with a language model of the evaluator split where none was given."""
        if self._fitted is None:
            other = copy.copy(self)
            other._public = split("public").inputs
            if other.language_model is None:
                other.language_model = NGramLanguageModel(
                    split("evaluator").inputs,
                    self.tokenizer.pad_id,
                    self.tokenizer.vocab_size,
                    source="the evaluator's texts",
                )
            self._fitted = other
        return self._fitted

    def nearest(self, candidates: Tensor, records: Tensor) -> Nearest:
        """The text that shares most with every candidate by ROUGE-L; of equal ones the first."""
        found = self.distances(candidates, records).min(dim=1)
        return Nearest(found.values, found.indices)

    def distances(self, candidates: Tensor, records: Tensor) -> Tensor:
        """One minus ROUGE-L F1 of all pairs, float64 [n, m] on the CPU."""
        return 1 - self.comparison.rouge_l(candidates, records)

    def closeness(self, distances: Tensor) -> Tensor:
        """ROUGE-L F1."""
        return 1 - distances

    def success_threshold(self, records: Tensor, labels: Tensor) -> float | None:
        """Mean distance of a deleted text to the nearest other one of its class.

        The mean over all pairs, the threshold of images, would call nearly every text a success: two random texts of a
        class have hardly a word in common. Of more than 2000 texts a random draw is compared.
        """
        order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))[:_MAX_PAIRED].sort().values
        nearest = []
        for label in torch.unique(labels[order]):
            texts = records[order][labels[order] == label]
            if len(texts) > 1:
                nearest.append(self.distances(texts, texts).fill_diagonal_(2.0).amin(dim=1))
        return float(torch.cat(nearest).mean()) if nearest else None

    def successes(self, candidates: Tensor, records: Tensor, threshold: float | None) -> dict[str, Tensor]:
        """``sr_rouge`` and, where the public texts are known, ``sr_verbatim``, on the device of the candidates."""
        found = {}
        if threshold is not None:
            found["sr_rouge"] = self.nearest(candidates, records).distance <= threshold
        if self._public is not None:
            found["sr_verbatim"] = self.verbatim(candidates, records)
        return {name: values.to(candidates.device) for name, values in found.items()}

    def verbatim(self, candidates: Tensor, records: Tensor) -> Tensor:
        """Which candidates copy `span_words` or more words in a row from one deleted text that no public text holds.

        Args:
            candidates: Shape [n, L].
            records: Shape [m, L].

        Returns:
            Booleans [n].

        Raises:
            InputError: If the domain was not `fitted`, so that there are no public texts.
        """
        if self._public is None:
            raise InputError("verbatim copies need the public texts: use the domain that `fitted` returns")
        copied, public = (self.comparison.copied(candidates, texts) for texts in (records, self._public))
        # Of two spans from the same word the longer one is not public if the shorter one is not.
        hits = [
            bool(((ours >= self.span_words) & (theirs < ours)).any())
            for ours, theirs in zip(copied, public, strict=True)
        ]
        return torch.tensor(hits, dtype=torch.bool)

    def centre(self, inputs: Tensor) -> Tensor | None:
        """None: token ids have no mean."""
        return None

    def own_metrics(self) -> dict[str, Metric]:
        """Distinct n-grams, and perplexity where there is a language model."""
        found: dict[str, Metric] = {"distinct": DistinctN(self.comparison)}
        if self.language_model is not None:
            found["perplexity"] = Perplexity(self.language_model, self.tokenizer.pad_id)
        return found

    def input_metrics(self, records: Tensor, centre: Tensor | None) -> dict[str, Metric]:
        """BLEU, ROUGE-L, copied spans, distinct n-grams, and perplexity where there is a language model."""
        return {
            "bleu": BestBLEU(records, self.comparison),
            "bleu_corpus": CorpusBLEU(records, self.comparison),
            "rouge_l": BestROUGE(records, self.comparison),
            "rouge_l_corpus": MeanROUGE(records, self.comparison),
            "spans": CopiedSpan(records, self.comparison),
            **self.own_metrics(),
        }

    def feature_metrics(self, features: Tensor, neighbours: int) -> dict[str, Metric]:
        """Maximum mean discrepancy, Fréchet distance, precision and recall."""
        return {
            "mmd": FeatureMMD(features),
            "fid_oracle": FeatureFID(features),
            "manifold": PrecisionRecall(features, neighbours=neighbours),
        }

    def floors(
        self,
        deleted: Tensor,
        labels: Tensor,
        heldout: Tensor | None,
        heldout_labels: Tensor | None,
        other: Tensor | None,
    ) -> dict[str, float | None]:
        """Best ROUGE-L with a deleted text: ``deleted_rouge_l`` of another deleted one, ``other_rouge_l`` of others.

        Those of unseen texts of the class are among `heldout_metrics`.
        """
        threshold = self.success_threshold(deleted, labels)
        found: dict[str, float | None] = {"deleted_rouge_l": None if threshold is None else 1 - threshold}
        found["other_rouge_l"] = None
        if other is not None and len(other):
            found["other_rouge_l"] = float(1 - self.nearest(other[:_MAX_OTHER], deleted).distance.mean())
        return found

    def calibration_inputs(self, real: Tensor, size: int, seed_of: Callable[[str], int]) -> dict[str, Tensor]:
        """``noise``, random tokens in texts of real lengths; ``mixup``, half of one and half of another."""
        special = {self.tokenizer.pad_id, self.tokenizer.bos_id, self.tokenizer.eos_id}
        return {
            "noise": random_tokens(real, size, self.tokenizer.vocab_size, special, seed_of("noise")),
            "mixup": spliced(real, size, special, self.tokenizer.pad_id, seed_of("mixup")),
        }

    def texts(self, inputs: Tensor) -> list[str] | None:
        """The texts themselves."""
        return self.comparison.texts(inputs)
