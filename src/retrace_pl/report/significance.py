"""How surprising the candidates' scores are, and what leaks, in words."""

from __future__ import annotations

from retrace_pl.report.glossary import format_value
from retrace_pl.report.run_data import RunData

__all__ = ["FURTHER_LEAKAGE", "kind_words", "own_class_sentence", "p_value_lines", "significance_sentences"]

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


def own_class_sentence(run: RunData) -> str:
    """Which class the wrong-class control deleted, and how often its search found it; empty where it did not run."""
    name, share = run.get("controls.wrong_class.own.class"), run.number("controls.wrong_class.own.sr_oracle")
    if name is None or share is None:
        return ""
    return f"It deleted {name}, which {format_value(share, percent=True)} of its own candidates show."


def p_value_lines(run: RunData, arm: str, index: int) -> list[str]:
    """P-values of a candidate for the lines below its picture: by its score, and by its likeness to deleted data."""
    lines = []
    for name, short in (("score", "p(s)"), ("likeness", "p(like)")):
        values = run.tensors.get(f"{arm}.{name}_p")
        if values is not None and values.ndim == 1 and index < len(values):
            value = float(values[index])
            lines.append(f"{short} {value:{'.1g' if value < 0.01 else '.2g'}}")  # no wider than the picture above
    return lines


def significance_sentences(run: RunData) -> list[str]:
    """What the p-values say, one sentence each; empty for a run without them."""
    counted = {name: _counted(run, name, what) for name, what in _STATISTICS.items()}
    found = [name for name, line in counted.items() if line]
    lines = [counted[name] for name in found]
    keys = [f"significance.{name}." for name in found[:1]]  # the null pairs are the same for every statistic
    pairs, candidates = (run.number(key + name) for key in keys or [""] for name in ("null_pairs", "null_candidates"))
    if lines and pairs is not None and candidates is not None:
        several = "s" if pairs != 1 else ""
        lines.append(
            f"Each is compared with the {candidates:,.0f} candidates that the same search selected on {pairs:.0f} null "
            f"pair{several}, whose models differ by their seeds alone. For the audited pair as a whole no p-value "
            f"below {format_value(1 / (pairs + 1))} is possible with {pairs:.0f} null pair{several}."
        )
    return lines


_STATISTICS = {
    "likeness": "resemble the deleted data more than training noise explains",
    "score": "have a trace larger than training noise explains",
}
"""What p-values are taken of -> what a small one says."""


def _counted(run: RunData, name: str, what: str) -> str:
    keys = ("significant", "candidates", "level", "pair_p")
    values = [run.number(f"significance.{name}.{key}") for key in keys]
    if any(value is None for value in values):
        return ""
    significant, candidates, level, pair_p = (value or 0.0 for value in values)
    recognised = run.number(f"significance.{name}.significant_and_recognised")
    judged = "" if recognised is None or not significant else f"; the evaluator recognises {recognised:.0f} of them"
    return (
        f"{significant:.0f} of {candidates:.0f} candidates {what} (q ≤ {level:g}, Benjamini and Hochberg){judged}. "
        f"Pair as a whole: p = {format_value(pair_p)}."
    )
