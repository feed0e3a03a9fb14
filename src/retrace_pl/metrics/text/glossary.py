"""Words for the metrics of texts."""

from __future__ import annotations

from retrace_pl.metrics.glossary import CLASS_SUCCESS, Glossary, Metric

__all__ = ["TEXTS"]

_METRICS: dict[str, Metric] = {
    **CLASS_SUCCESS,
    "sr_rouge": Metric(
        "Success (overlap)",
        "higher",
        "Share of candidates that share as much with a deleted text, by ROUGE-L, as deleted texts do on average with "
        "the most similar other one of their class.",
        percent=True,
        floors=("heldout_sr_rouge",),
        found="as close to a deleted text as deleted texts come to each other",
    ),
    "sr_verbatim": Metric(
        "Verbatim",
        "higher",
        "Share of candidates that copy a long span of words from one deleted text that no public text holds.",
        percent=True,
        floors=("heldout_sr_verbatim",),
        found="word for word parts of deleted texts that no public text holds",
    ),
    "rouge_l": Metric(
        "ROUGE-L (best match)",
        "higher",
        "Longest common subsequence of words with the most similar deleted text, as F1, from 0 to 1. Texts on one "
        "topic share phrases anyway: read it beside unseen texts.",
        floors=("heldout_rouge_l", "deleted_rouge_l", "other_rouge_l"),
    ),
    "rouge_l_corpus": Metric(
        "ROUGE-L (all pairs)",
        "higher",
        "Mean ROUGE-L F1 over all pairs of a candidate and a deleted text.",
        floors=("heldout_rouge_l_corpus",),
    ),
    "bleu": Metric(
        "BLEU (best match)",
        "higher",
        "Shared sequences of up to four words with the deleted text that matches best, smoothed, from 0 to 100.",
        floors=("heldout_bleu",),
    ),
    "bleu_corpus": Metric(
        "BLEU (corpus)",
        "higher",
        "BLEU of all candidates together with all deleted texts as references, from 0 to 100; no smoothing.",
        floors=("heldout_bleu_corpus",),
    ),
    "longest_span": Metric(
        "Longest copied span",
        "higher",
        "Most words in a row that any candidate copies from one deleted text.",
        floors=("heldout_longest_span",),
    ),
    "mean_span": Metric(
        "Copied span (mean)",
        "higher",
        "Words in a row that a candidate copies from one deleted text, at most; mean over candidates.",
        floors=("heldout_mean_span",),
    ),
    "mmd": Metric(
        "MMD (evaluator features)",
        "lower",
        "Unbiased squared maximum mean discrepancy between candidates and deleted texts in the evaluator's features, "
        "Gaussian kernel; around 0 for equal distributions, so it may be slightly negative.",
        floors=("heldout_mmd",),
    ),
    "fid_oracle": Metric(
        "FID (evaluator features)",
        "lower",
        "Fréchet distance between candidates and deleted texts in the evaluator's features.",
        floors=("heldout_fid_oracle",),
    ),
    "label_kl": Metric(
        "KL (labels)", "lower", "Divergence of the class histogram of the candidates from that of the deleted texts."
    ),
    "precision": Metric(
        "Precision",
        "higher",
        "Share of candidates that lie on the manifold of the deleted texts' features.",
        percent=True,
        floors=("heldout_precision",),
    ),
    "recall": Metric(
        "Recall",
        "higher",
        "Share of the deleted texts whose features lie on the manifold of the candidates.",
        percent=True,
        floors=("heldout_recall",),
    ),
    "distinct_1": Metric(
        "Distinct words",
        "higher",
        "Different words among all words of all candidates. Near zero: many copies of one candidate.",
        floors=("heldout_distinct_1",),
    ),
    "distinct_2": Metric(
        "Distinct pairs",
        "higher",
        "Different pairs of neighbouring words among all pairs of all candidates.",
        floors=("heldout_distinct_2",),
    ),
    "perplexity": Metric(
        "Perplexity",
        "none",
        "How much the candidates surprise a language model that saw neither the deleted nor any training text. Far "
        "above unseen texts: nonsense. It says how fluent they are, and nothing of a leak.",
        floors=("heldout_perplexity",),
    ),
    "score": Metric(
        "Trace score",
        "none",
        "What the search climbed: the normalised gap between the two models, in [0, 1]. Shows effort, not success.",
    ),
}

_FLOORS: dict[str, str] = {
    name: "unseen real texts" for metric in _METRICS.values() for name in metric.floors if name.startswith("heldout_")
} | {
    "deleted_rouge_l": "two deleted texts, most similar",
    "other_rouge_l": "texts of another class",
}

TEXTS = Glossary(
    domain="text",
    items="texts",
    shown="texts",
    metrics=_METRICS,
    floors=_FLOORS,
    closeness="rouge_l",
    closeness_title="ROUGE-L",
    closeness_short="ROUGE-L",
    columns=("rouge_l", "bleu", "longest_span", "distinct_2", "mmd"),
    summary=("sr_oracle", "rouge_l", "bleu", "longest_span", "mmd", "distinct_2", "perplexity"),
    legend="First text: a candidate. Second text: the deleted text that shares most with it by ROUGE-L. Marked: spans "
    "of two or more words that both have. s: trace score.",
    caution="Texts of one class share phrases: a headline can have many words in common with a deleted text that "
    "nobody ever saw. Read overlap beside unseen texts of the class, and trust spans that no public text holds.",
    caution_short="Texts of one class share phrases: read overlap beside unseen texts.",
)
"""Words for texts."""
