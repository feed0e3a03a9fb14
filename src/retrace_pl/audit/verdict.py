"""The verdict of an audit: ``leak``, ``no_evidence`` or ``invalid``, from the numbers of ``metrics.json`` alone.

Anyone can recompute it: :func:`decide` reads the stored metrics and nothing else. Checks run in a fixed order. An
audit whose instrument is broken is *invalid*, whatever it found; one whose interval includes zero is *no evidence*,
which is not evidence of absence. A leak has one or more kinds, see :class:`retrace_pl.audit.Kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace_pl.audit.facts import Check, Kind, Status, Verdict, VerdictThresholds, lookup, not_finite, number
from retrace_pl.audit.words import NO_EXCESS, SAME, leak_reason, no_evidence_reason, not_judged_reason, percent
from retrace_pl.metrics import glossary_of

__all__ = ["EXCESSES", "decide"]

EXCESSES = {
    "excess": "lower end of the excess leakage interval",
    "excess_null": "lower end of the excess over the null pair",
    "excess_never_trained": "lower end of the excess over models never trained on the deleted data",
    "excess_wrong_class": "lower end of the excess over the wrong class",
}
"""Key under ``leakage`` -> what its check is called. What was found is a leak only if it exceeds every one that ran:
each stands for another way to find something where nothing leaks."""


def decide(metrics: Mapping[str, Any], thresholds: VerdictThresholds | None = None) -> Verdict:
    """Verdict of an audit from its metrics.

    Args:
        metrics: The content of ``metrics.json`` (``verdict`` and ``verdict_reason`` are not read).
        thresholds: Conditions; by default those stored under ``thresholds``, else :class:`VerdictThresholds`'s own.

    Returns:
        ``invalid`` if a number is not finite, the evaluator cannot judge, the original model never knew the deleted
        data, the identity control shows a trace, or excess leakage was not measured. ``no_evidence`` if the audited
        score is constant. ``leak`` if what was found exceeds prior only and every other control that ran; if records
        leak beyond their kind after a deletion of single records; or if the unlearned model has forgotten more than
        models that never saw the deleted data, at least two of which were trained. Else ``no_evidence``. Where nobody
        said what was deleted (``judged`` is false), ``not_judged`` stands in the place of the last two.
    """
    limits = thresholds or VerdictThresholds(**(lookup(metrics, "thresholds") or {}))
    checks = _instrument_checks(metrics, limits)
    failed = next(((check, reason) for check, reason in checks if check.passed is False), None)
    spread = _spread_check(metrics, limits)
    excesses = {key: _above(metrics, key, name, limits.min_excess) for key, name in EXCESSES.items()}
    record = _above(metrics, "record", "lower end of the record leakage interval", limits.min_record)
    forgotten = _over_forgetting_check(metrics, limits)
    listed = (*(check for check, _ in checks), spread, *excesses.values(), record, forgotten)
    if failed is not None:
        return Verdict(Status.INVALID, failed[1], listed)
    if spread.passed is False:
        return Verdict(Status.NO_EVIDENCE, SAME, listed)
    if lookup(metrics, "judged") is False:
        return Verdict(Status.NOT_JUDGED, not_judged_reason(metrics), listed)
    if excesses["excess"].passed is None:
        return Verdict(Status.INVALID, NO_EXCESS, listed)
    first_failed = next((key for key, check in excesses.items() if check.passed is False), None)
    kinds = _kinds(metrics, first_failed is None, record, forgotten)
    if kinds:
        return Verdict(Status.LEAK, leak_reason(metrics, kinds), listed, kinds)
    return Verdict(Status.NO_EVIDENCE, no_evidence_reason(metrics, first_failed or "excess"), listed)


def _kinds(metrics: Mapping[str, Any], found: bool, record: Check, forgotten: Check) -> tuple[Kind, ...]:
    """What leaks. Records of a class that was deleted as a whole leak only where the class does."""
    single = lookup(metrics, "setting.deletion") == "records"
    kinds = [Kind.DISTRIBUTION if single else Kind.CLASS] if found else []
    if record.passed and (found or single):
        kinds.append(Kind.RECORD)
    if forgotten.passed:
        kinds.append(Kind.OVER_FORGETTING)
    return tuple(kinds)


def _at_least(name: str, value: float | None, limit: float) -> Check:
    return Check(name, value, f"≥ {limit:g}", None if value is None else value >= limit)


def _above(metrics: Mapping[str, Any], key: str, name: str, limit: float) -> Check:
    low = number(metrics, f"leakage.{key}.low")
    return Check(name, low, f"> {limit:g}", None if low is None else low > limit)


def _over_forgetting_check(metrics: Mapping[str, Any], limits: VerdictThresholds) -> Check:
    """A single retrained model does not tell how much such models differ, so nothing is said by being worse than it."""
    name = "lower end of the over-forgetting interval, in nats"
    if (number(metrics, "leakage.over_forgetting.repeats") or 0) < 2:
        return Check(name, None, f"> {limits.min_over_forgetting:g}", None)
    return _above(metrics, "over_forgetting", name, limits.min_over_forgetting)


def _instrument_checks(metrics: Mapping[str, Any], limits: VerdictThresholds) -> list[tuple[Check, str]]:
    items = glossary_of(metrics).items
    stored = lookup(metrics, "not_finite") or ()
    bad = next(iter([*stored, *not_finite(metrics)]), None)
    finite = Check("every number is finite", None, "no NaN or infinity", bad is None)
    accuracy = number(metrics, "models.evaluator.test_acc")
    recall = number(metrics, "floors.heldout_sr_oracle")
    known = number(metrics, "original.forget_acc")
    trace = number(metrics, "controls.identity.max_trace")
    small = None if trace is None else trace <= limits.max_identity_trace
    return [
        (finite, f"{bad} is not a finite number, so a stage of this run failed and its figures cannot be trusted."),
        (
            _at_least(f"evaluator accuracy on unseen {items}", accuracy, limits.min_evaluator_accuracy),
            f"The evaluation classifier is right on only {percent(accuracy)} of unseen {items} "
            f"(at least {percent(limits.min_evaluator_accuracy)} needed), so it cannot judge what was reconstructed.",
        ),
        (
            _at_least("evaluator recall of the deleted class", recall, limits.min_evaluator_recall),
            f"The evaluation classifier recognises only {percent(recall)} of unseen {items} of the deleted class "
            f"(at least {percent(limits.min_evaluator_recall)} needed), so it cannot judge what was reconstructed.",
        ),
        (
            _at_least("the original model knew the deleted data", known, limits.min_original_recall),
            f"The original model is right on only {percent(known)} of the deleted data "
            f"(at least {percent(limits.min_original_recall)} needed), so there was nothing to forget.",
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
    spread = number(metrics, "attack.score_spread")
    if spread is not None:
        return Check(name, spread, f"> {limits.min_score_spread:g}", spread > limits.min_score_spread)
    aurocs = lookup(metrics, "calibration.auroc")
    known = [value for value in aurocs.values() if value is not None] if isinstance(aurocs, Mapping) else []
    if known and all(value == 0.5 for value in known):
        return Check(name, 0.0, f"> {limits.min_score_spread:g}", False)
    return Check(name, None, f"> {limits.min_score_spread:g}", None)
