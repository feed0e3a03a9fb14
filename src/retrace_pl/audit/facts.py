"""What a verdict is made of, and how its numbers are read from ``metrics.json``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Check", "Kind", "Status", "Verdict", "VerdictThresholds", "lookup", "not_finite", "number"]


class Status(StrEnum):
    """The answers of an audit; ``not_judged`` only where nobody said what was deleted."""

    LEAK = "leak"
    NO_EVIDENCE = "no_evidence"
    INVALID = "invalid"
    NOT_JUDGED = "not_judged"


class Kind(StrEnum):
    """What leaks; an audit may find several.

    ``class``: what the deleted class looks like (``distribution`` after a deletion of single records: what the deleted
    records are like). ``record``: the deleted records themselves, beyond what unseen records of their kind explain.
    ``over_forgetting``: the unlearned model is worse on the deleted records than models that never saw them, so they
    are marked as deleted.
    """

    CLASS = "class"
    DISTRIBUTION = "distribution"
    RECORD = "record"
    OVER_FORGETTING = "over_forgetting"


@dataclass(frozen=True)
class VerdictThresholds:
    """What an audit must meet before its numbers are read, and from where on they are a leak.

    Args:
        min_evaluator_accuracy: Test accuracy below which the evaluation classifier cannot judge.
        min_evaluator_recall: Share of unseen images of the deleted class that the evaluation classifier must
            recognise.
        min_original_recall: Share of the deleted records (or of unseen images of their class) that the original model
            must get right; below it there was nothing to delete.
        max_identity_trace: Largest trace tolerated between a model and itself (float32 rounding of repeated batches).
        min_score_spread: Spread (max - min over the pool) below which the audited score is constant.
        min_excess: Lower end above which the excess over a control counts: over prior only and, where they ran, over
            the null pair, the models that were never trained on the deleted data, and the wrong class.
        min_record: Lower end of the record leakage interval above which records leak.
        min_over_forgetting: Lower end in nats above which the unlearned model has forgotten too much.
    """

    min_evaluator_accuracy: float = 0.7
    min_evaluator_recall: float = 0.5
    min_original_recall: float = 0.5
    max_identity_trace: float = 1e-5
    min_score_spread: float = 1e-6
    min_excess: float = 0.0
    min_record: float = 0.0
    min_over_forgetting: float = 0.0


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
    """A verdict, a sentence or two that give its reason, and the checks behind it.

    Args:
        status: The answer.
        reason: One line for a reader.
        checks: Conditions in the order in which they were tried; those after a failed one are listed as well.
        kinds: What leaks; empty unless the status is ``leak``.
    """

    status: Status
    reason: str
    checks: tuple[Check, ...]
    kinds: tuple[Kind, ...] = ()


def lookup(metrics: Mapping[str, Any], path: str) -> Any:
    """Value at a dotted path such as ``"leakage.excess.low"``; None where any part of it is missing or null."""
    node: Any = metrics
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def number(metrics: Mapping[str, Any], path: str) -> float | None:
    """Number at a dotted path, or None where it is missing, null or not a number."""
    value = lookup(metrics, path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
