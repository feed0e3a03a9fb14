"""The verdict of an audit: ``leak``, ``no_evidence`` or ``invalid``, from the numbers of ``metrics.json`` alone.

Anyone can recompute it: :func:`decide` reads the stored metrics and nothing else. Checks run in a fixed order. An
audit whose instrument is broken is *invalid*, whatever it found; one whose interval includes zero is *no evidence*,
which is not evidence of absence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Check", "Status", "Verdict", "VerdictThresholds", "decide", "lookup", "not_finite"]


class Status(StrEnum):
    """The three answers of an audit."""

    LEAK = "leak"
    NO_EVIDENCE = "no_evidence"
    INVALID = "invalid"


@dataclass(frozen=True)
class VerdictThresholds:
    """What an audit must meet before its numbers are read.

    Args:
        min_evaluator_accuracy: Test accuracy below which the evaluation classifier cannot judge.
        min_evaluator_recall: Share of unseen images of the deleted class that the evaluation classifier must
            recognise.
        min_original_recall: Share of the deleted records (or of unseen images of their class) that the original model
            must get right; below it there was nothing to delete.
        max_identity_trace: Largest trace tolerated between a model and itself (float32 rounding of repeated batches).
        min_score_spread: Spread (max - min over the pool) below which the audited score is constant.
        min_excess: Lower end of the excess leakage interval above which there is a leak.
    """

    min_evaluator_accuracy: float = 0.7
    min_evaluator_recall: float = 0.5
    min_original_recall: float = 0.5
    max_identity_trace: float = 1e-5
    min_score_spread: float = 1e-6
    min_excess: float = 0.0


@dataclass(frozen=True)
class Check:
    """One condition of the verdict.

    Args:
        name: What was checked, in plain words.
        value: The figure found, or None where the run does not have it.
        threshold: The condition in words, e.g. ``"≥ 0.7"``.
        passed: Outcome; None where the value is missing and the check does not apply.
    """

    name: str
    value: float | None
    threshold: str
    passed: bool | None


@dataclass(frozen=True)
class Verdict:
    """A verdict, one sentence that gives its reason, and the checks behind it.

    Args:
        status: The answer.
        reason: One sentence for a reader.
        checks: Conditions in the order in which they were tried; those after a failed one are listed as well.
    """

    status: Status
    reason: str
    checks: tuple[Check, ...]


_SUCCESS = {
    "sr_oracle": "recognised as deleted data by the independent evaluator",
    "sr_original": "recognised as deleted data by the original model",
    "sr_mse": "as close to a deleted record as deleted records are to each other",
}


def lookup(metrics: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path such as ``"leakage.excess.low"``; None where any part of it is missing or null."""
    node: Any = metrics
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def decide(metrics: Mapping[str, Any], thresholds: VerdictThresholds | None = None) -> Verdict:
    """Verdict of an audit from its metrics.

    Args:
        metrics: The content of ``metrics.json`` (``verdict`` and ``verdict_reason`` are not read).
        thresholds: Conditions; by default those stored under ``thresholds``, else :class:`VerdictThresholds`'s own.

    Returns:
        ``invalid`` if a number is not finite, the evaluator cannot judge, the original model never knew the deleted
        data, the identity control shows a trace, or excess leakage was not measured; ``no_evidence`` if the audited
        score is constant or the excess interval reaches zero; else ``leak``.
    """
    limits = thresholds or VerdictThresholds(**(lookup(metrics, "thresholds") or {}))
    checks = _instrument_checks(metrics, limits)
    failed = next(((check, reason) for check, reason in checks if check.passed is False), None)
    spread, excess = _spread_check(metrics, limits), _excess_check(metrics, limits)
    listed = (*(check for check, _ in checks), spread, excess)
    if failed is not None:
        return Verdict(Status.INVALID, failed[1], listed)
    if spread.passed is False:
        return Verdict(Status.NO_EVIDENCE, _SAME, listed)
    if excess.passed is None:
        return Verdict(Status.INVALID, _NO_EXCESS, listed)
    if excess.passed:
        return Verdict(Status.LEAK, _leak_reason(metrics), listed)
    return Verdict(Status.NO_EVIDENCE, _no_evidence_reason(metrics), listed)


_SAME = (
    "The two models are indistinguishable through this access: every candidate gets the same score, so there is "
    "nothing to follow."
)
_NO_EXCESS = (
    "Excess leakage was not measured (the prior control did not run), so success cannot be told from the generator's "
    "own ability."
)


def _number(metrics: Mapping[str, Any], path: str) -> float | None:
    value = lookup(metrics, path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _at_least(name: str, value: float | None, limit: float) -> Check:
    return Check(name, value, f"≥ {limit:g}", None if value is None else value >= limit)


def _instrument_checks(metrics: Mapping[str, Any], limits: VerdictThresholds) -> list[tuple[Check, str]]:
    stored = lookup(metrics, "not_finite") or ()
    bad = next(iter([*stored, *not_finite(metrics)]), None)
    finite = Check("every number is finite", None, "no NaN or infinity", bad is None)
    accuracy = _number(metrics, "models.evaluator.test_acc")
    recall = _number(metrics, "floors.heldout_sr_oracle")
    known = _number(metrics, "original.forget_acc")
    trace = _number(metrics, "controls.identity.max_trace")
    small = None if trace is None else trace <= limits.max_identity_trace
    return [
        (finite, f"{bad} is not a finite number, so a stage of this run failed and its figures cannot be trusted."),
        (
            _at_least("evaluator accuracy on unseen images", accuracy, limits.min_evaluator_accuracy),
            f"The evaluation classifier is right on only {_percent(accuracy)} of unseen images "
            f"(at least {_percent(limits.min_evaluator_accuracy)} needed), so it cannot judge what was reconstructed.",
        ),
        (
            _at_least("evaluator recall of the deleted class", recall, limits.min_evaluator_recall),
            f"The evaluation classifier recognises only {_percent(recall)} of unseen images of the deleted class "
            f"(at least {_percent(limits.min_evaluator_recall)} needed), so it cannot judge what was reconstructed.",
        ),
        (
            _at_least("the original model knew the deleted data", known, limits.min_original_recall),
            f"The original model is right on only {_percent(known)} of the deleted data "
            f"(at least {_percent(limits.min_original_recall)} needed), so there was nothing to forget.",
        ),
        (
            Check("largest trace of a model against itself", trace, f"≤ {limits.max_identity_trace:g}", small),
            f"The identity control shows a trace of {trace or 0.0:.3g} between a model and itself where there can be "
            "none, so the instrument is at fault.",
        ),
    ]


def _spread_check(metrics: Mapping[str, Any], limits: VerdictThresholds) -> Check:
    """Whether the score tells any two candidates apart.

    Without a stored spread, calibration AUROCs of exactly 1/2 (tie-corrected) stand for a constant trace.
    """
    name = "the audited score tells candidates apart"
    spread = _number(metrics, "attack.score_spread")
    if spread is not None:
        return Check(name, spread, f"> {limits.min_score_spread:g}", spread > limits.min_score_spread)
    aurocs = lookup(metrics, "calibration.auroc")
    known = [value for value in aurocs.values() if value is not None] if isinstance(aurocs, Mapping) else []
    if known and all(value == 0.5 for value in known):
        return Check(name, 0.0, f"> {limits.min_score_spread:g}", False)
    return Check(name, None, f"> {limits.min_score_spread:g}", None)


def _excess_check(metrics: Mapping[str, Any], limits: VerdictThresholds) -> Check:
    low = _number(metrics, "leakage.excess.low")
    passed = None if low is None else low > limits.min_excess
    return Check("lower end of the excess leakage interval", low, f"> {limits.min_excess:g}", passed)


def _leak_reason(metrics: Mapping[str, Any]) -> str:
    than_prior = _more(metrics, "excess", "than the generator's own samples")
    first = f"Candidates found through the two models are {than_prior}"
    value, low, high = (_number(metrics, f"leakage.avoidable.{key}") for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return f"{first}; the matched retrain did not run, so whether better unlearning would prevent it is open."
    if low > 0:
        than = _more(metrics, "avoidable", "than after a perfect retrain")
        return f"{first}, and {than}: that part is avoidable by better unlearning."
    if high < 0:
        return f"{first}; a perfect retrain leaks even more, so better unlearning alone would not prevent it."
    return f"{first}; a perfect retrain leaks as much, so better unlearning alone would not prevent it."


def _no_evidence_reason(metrics: Mapping[str, Any]) -> str:
    high = _number(metrics, "leakage.excess.high")
    own = f"the generator's own samples ({_difference(metrics, 'excess')}): no evidence of a leak at this budget."
    if high is not None and high < 0:
        return f"The search did worse than {own}"
    return f"What the search found does not exceed {own}"


def _more(metrics: Mapping[str, Any], kind: str, than: str) -> str:
    metric = lookup(metrics, f"leakage.{kind}.metric") or "sr_oracle"
    if metric in _SUCCESS:
        return f"{_SUCCESS[metric]} more often {than} ({_difference(metrics, kind)})"
    return f"closer to the deleted data {than} ({metric}: {_difference(metrics, kind)})"


def _difference(metrics: Mapping[str, Any], kind: str) -> str:
    value, low, high = (_number(metrics, f"leakage.{kind}.{key}") for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "no interval"
    metric = lookup(metrics, f"leakage.{kind}.metric") or "sr_oracle"
    level = _number(metrics, f"leakage.{kind}.level") or 0.95
    if metric in _SUCCESS:
        span = f"{_points(low)} to {_points(high)}"
        return f"{_points(value)} percentage points, {level:.0%} interval {span}"
    return f"{value:+.3g}, {level:.0%} interval {low:+.3g} to {high:+.3g}"


def _points(value: float) -> str:
    rounded = round(100 * value)
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "\u2212")


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value:.0%}"


def not_finite(metrics: Any) -> list[str]:
    """Dotted paths of NaN and infinite numbers, in order.

    JSON has no word for them, so whoever writes ``metrics.json`` stores this list under ``not_finite`` beside the
    nulls.
    """
    return list(_not_finite(metrics))


def _not_finite(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, float) and not math.isfinite(node):
        yield path
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from _not_finite(value, f"{path}.{key}" if path else str(key))
