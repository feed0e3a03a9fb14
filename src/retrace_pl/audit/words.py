"""The reasons of a verdict, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace_pl.audit.facts import Kind, lookup, number
from retrace_pl.metrics import found_words, glossary_of

__all__ = ["NO_EXCESS", "SAME", "leak_reason", "no_evidence_reason", "not_judged_reason", "percent"]

UNREPEATED = 1e-3
"""Difference between two answers of a model to the same input that is no rounding any more."""

SAME = (
    "The two models are indistinguishable through this access: every candidate gets the same score, so there is "
    "nothing to follow."
)
NO_EXCESS = (
    "Excess leakage was not measured (the prior control did not run), so success cannot be told from the generator's "
    "own ability."
)

_NO_MORE = {
    "excess_null": "what it finds on two models that differ by their seeds alone",
    "excess_never_trained": "what it finds on two models that never saw the deleted data",
    "excess_wrong_class": "what it finds after another class was deleted: a class vanished, but nothing says which",
}
"""What an excess that reaches zero is compared with, in the order in which the reason looks at them."""


def leak_reason(metrics: Mapping[str, Any], kinds: tuple[Kind, ...]) -> str:
    """Why there is a leak, and of what.

    Args:
        metrics: The content of ``metrics.json``.
        kinds: What leaks; at least one.
    """
    parts = []
    if Kind.CLASS in kinds or Kind.DISTRIBUTION in kinds:
        parts.append(_found_reason(metrics))
        if number(metrics, "leakage.excess_null.low") is None:
            parts.append("Training noise is not ruled out: the null pair did not run.")
    if Kind.RECORD in kinds:
        span = _difference(metrics, "record")
        parts.append(f"The candidates are nearer to the deleted records than to unseen ones of their kind ({span}).")
    if Kind.OVER_FORGETTING in kinds:
        span = _difference(metrics, "over_forgetting")
        parts.append(
            f"The unlearned model is worse on the deleted records than models that never saw them ({span} nats of "
            "loss), which marks them as deleted."
        )
    return " ".join(parts)


def not_judged_reason(metrics: Mapping[str, Any]) -> str:
    """What can be said of candidates where nobody said what was deleted.

    Args:
        metrics: The content of ``metrics.json``.
    """
    gaps = {name: number(metrics, f"gaps.{name}.gap") for name in ("attack", "prior", "null", "matched_retrain")}
    parts = [
        "No deleted data was given, so nothing says whether the candidates look like it.",
        f"On them the probabilities of the two models are {_gap(gaps['attack'])} apart (0 to 1.41), on random samples "
        f"of the generator {_gap(gaps['prior'])}.",
    ]
    if gaps["null"] is not None:
        parts.append(f"Two models that differ by their seeds alone reach {_gap(gaps['null'])} in the same search.")
    if gaps["matched_retrain"] is not None:
        parts.append(f"The original and the reference model reach {_gap(gaps['matched_retrain'])} in the same search.")
    noise = max(number(metrics, f"models.{name}.repeatability") or 0.0 for name in ("original", "unlearned"))
    if noise > UNREPEATED:
        parts.append(
            f"A model's own answers to the same input are up to {noise:.3f} apart, so less than that says nothing."
        )
    answer = lookup(metrics, "inferences.class_inference.answer") or {}
    named = answer.get("deleted_classes") or []
    if named:
        names = lookup(metrics, "classes") or []
        words = ", ".join(str(names[index]) if index < len(names) else str(index) for index in named)
        clear = "points to" if answer.get("clear") else "points, without a clear gap, to"
        items = glossary_of(metrics).items
        parts.append(f"Class inference from public {items} {clear} class{'es' if len(named) > 1 else ''} {words}.")
    return " ".join(parts)


def _gap(value: float | None) -> str:
    return "an unknown distance" if value is None else f"{value:.3f}"


def _found_reason(metrics: Mapping[str, Any]) -> str:
    than_prior = _more(metrics, "excess", "than the generator's own samples")
    first = f"Candidates found through the two models are {than_prior}"
    if number(metrics, "leakage.excess_null.low") is not None:
        first += f" and than what training noise yields ({_difference(metrics, 'excess_null')})"
    value, low, high = (number(metrics, f"leakage.avoidable.{key}") for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return f"{first}; the matched retrain did not run, so whether better unlearning would prevent it is open."
    if low > 0:
        than = _more(metrics, "avoidable", "than after a perfect retrain")
        return f"{first}, and {than}: that part is avoidable by better unlearning."
    if high < 0:
        return f"{first}; a perfect retrain leaks even more, so better unlearning alone would not prevent it."
    return f"{first}; a perfect retrain leaks as much, so better unlearning alone would not prevent it."


def no_evidence_reason(metrics: Mapping[str, Any], failed: str) -> str:
    """Why there is no evidence of a leak.

    Args:
        metrics: The content of ``metrics.json``.
        failed: The first excess whose interval does not lie above the threshold, e.g. ``"excess"``.
    """
    end = f"({_difference(metrics, failed)}): no evidence of a leak at this budget."
    if failed in _NO_MORE:
        return f"What the search found does not exceed {_NO_MORE[failed]} {end}"
    high = number(metrics, "leakage.excess.high")
    if high is not None and high < 0:
        return f"The search did worse than the generator's own samples {end}"
    return f"What the search found does not exceed the generator's own samples {end}"


def _more(metrics: Mapping[str, Any], kind: str, than: str) -> str:
    metric = lookup(metrics, f"leakage.{kind}.metric") or "sr_oracle"
    if found_words(metric):
        return f"{found_words(metric)} more often {than} ({_difference(metrics, kind)})"
    return f"closer to the deleted data {than} ({metric}: {_difference(metrics, kind)})"


def _difference(metrics: Mapping[str, Any], kind: str) -> str:
    value, low, high = (number(metrics, f"leakage.{kind}.{key}") for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "no interval"
    metric = lookup(metrics, f"leakage.{kind}.metric") or "sr_oracle"
    level = number(metrics, f"leakage.{kind}.level") or 0.95
    if found_words(metric):
        span = f"{_points(low)} to {_points(high)}"
        return f"{_points(value)} percentage points, {level:.0%} interval {span}"
    return f"{value:+.3g}, {level:.0%} interval {low:+.3g} to {high:+.3g}"


def _points(value: float) -> str:
    rounded = round(100 * value)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "\u2212")


def percent(value: float | None) -> str:
    """A share for a sentence."""
    return "an unknown share" if value is None else f"{value:.0%}"
