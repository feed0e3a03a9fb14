"""How surprising the candidates' scores are, and what leaks, in words."""

from __future__ import annotations

from retrace_pl.report.glossary import format_value
from retrace_pl.report.run_data import RunData

__all__ = ["FURTHER_LEAKAGE", "kind_words", "p_value_line", "significance_sentences"]

KINDS = {
    "class": "the deleted class",
    "distribution": "what the deleted records are like",
    "record": "deleted records",
    "over_forgetting": "forgotten too much",
}
"""What leaks -> words for it."""

FURTHER_LEAKAGE = {
    "excess_null": (
        "Excess over null",
        "attack minus the same on models that differ by their seeds: what training noise does not explain",
    ),
    "excess_never_trained": (
        "Excess over never trained",
        "attack minus the same on models that never saw the deleted data: what public data does not explain",
    ),
    "excess_wrong_class": (
        "Excess over wrong class",
        "attack minus the same after another class was deleted: what any vanished class does not explain",
    ),
    "over_forgetting": (
        "Over-forgetting",
        "loss on deleted records, in nats, minus that of models that never saw them: a mark of its own",
    ),
}
"""Key under ``leakage`` -> title and definition of a leakage whose control is optional."""


def kind_words(run: RunData) -> str:
    """What leaks, e.g. "the deleted class, deleted records"; empty where nothing does."""
    kinds = run.get("verdict_kinds")
    return ", ".join(KINDS.get(str(kind), str(kind)) for kind in kinds) if isinstance(kinds, list) else ""


def p_value_line(run: RunData, arm: str, index: int) -> str:
    """P-value of a candidate for the line below its picture; empty where there is none."""
    values = run.tensors.get(f"{arm}.p_values")
    if values is None or values.ndim != 1 or index >= len(values):
        return ""
    return f"p {format_value(float(values[index]))}"


def significance_sentences(run: RunData) -> list[str]:
    """What the p-values say, one sentence each; empty for a run without them."""
    found = {key: run.number(f"significance.{key}") for key in ("significant", "candidates", "level", "pair_p")}
    counts = {key: run.number(f"significance.{key}") for key in ("null_candidates", "null_pairs")}
    if None in (*found.values(), *counts.values()):
        return []
    significant, candidates, level, pair_p = (found[key] or 0.0 for key in found)
    null_candidates, pairs = (int(counts[key] or 0) for key in counts)
    recognised = run.number("significance.significant_and_recognised")
    judged = "" if recognised is None or not significant else f"; the evaluator recognises {recognised:.0f} of them"
    several = "s" if pairs != 1 else ""
    return [
        f"{significant:.0f} of {candidates:.0f} candidates have a trace that the null pair{several} cannot explain "
        f"(q ≤ {level:g}, Benjamini and Hochberg){judged}.",
        f"Each is compared with the {null_candidates:,} candidates that the same search selected on {pairs} null "
        f"pair{several}, on one scale. Taken as a whole the audited pair has p = {format_value(pair_p)}; with {pairs} "
        f"null pair{several} no value below {format_value(1 / (pairs + 1))} is possible.",
    ]
