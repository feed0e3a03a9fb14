"""Attacks: from two models and public data to a reconstruction of what was deleted."""

from retrace_pl.attacks.base import (
    Attack,
    AttackContext,
    Finding,
    InferenceAttack,
    NotApplicable,
    Reconstruction,
    Shadow,
    Truth,
)
from retrace_pl.attacks.prior import prior_only
from retrace_pl.attacks.retrace import ReTrace
from retrace_pl.attacks.selection import Selection, assemble, select_distribution, select_instance

__all__ = [
    "Attack",
    "AttackContext",
    "Finding",
    "InferenceAttack",
    "NotApplicable",
    "ReTrace",
    "Reconstruction",
    "Selection",
    "Shadow",
    "Truth",
    "assemble",
    "prior_only",
    "select_distribution",
    "select_instance",
]
