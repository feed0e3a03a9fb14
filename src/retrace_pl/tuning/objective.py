"""What tuning minimises: how far an unlearned model is from a retrained one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MEASURES = ("retain_acc", "forget_acc", "test_acc", "mia_auc")
"""The quality measures that are compared; all lie in [0, 1], see `retrace_pl.tasks.unlearning_quality`."""

WORST = float(len(MEASURES))
"""The largest possible distance; what a run that failed or diverged counts as."""

FORGET_MARGIN, RETAIN_MARGIN = 0.1, 0.05
"""Largest differences in forget and in retain accuracy at which a method counts as having reached retraining."""


def differences(quality: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """The unlearned model's measures minus those of the retrained reference.

    Args:
        quality: Measures of the unlearned model, at least `MEASURES`.
        reference: The same of the retrained model.

    Returns:
        One signed difference in [-1, 1] per measure; NaN where a measure is NaN.
    """
    return {name: quality[name] - reference[name] for name in MEASURES}


def distance(gaps: Mapping[str, float]) -> float:
    """The sum of the absolute differences, in [0, 4]; `WORST` where one is not finite.

    Args:
        gaps: What `differences` returned.
    """
    total = math.fsum(abs(gaps[name]) for name in MEASURES)
    return total if math.isfinite(total) else WORST


def mean_measures(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every measure over several models or seeds.

    Args:
        rows: One mapping per model, each with all of `MEASURES`; at least one.
    """
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in MEASURES}


def shortcomings(quality: Mapping[str, float], reference: Mapping[str, float]) -> list[str]:
    """Why a model does not count as having reached retraining; empty where it does.

    Args:
        quality: Measures of the unlearned model, for instance means over seeds.
        reference: The same of the retrained model.

    Returns:
        A phrase per accuracy that is further off than `FORGET_MARGIN` or `RETAIN_MARGIN`.
    """
    found = []
    gaps = differences(quality, reference)
    for name, margin in (("forget_acc", FORGET_MARGIN), ("retain_acc", RETAIN_MARGIN)):
        if not abs(gaps[name]) <= margin:
            found.append(
                f"{name} is {quality[name]:.3f} where retraining gives {reference[name]:.3f} (margin {margin:g})"
            )
    return found
