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
from retrace_pl.attacks.class_inference import ClassInference
from retrace_pl.attacks.hrec import HRec
from retrace_pl.attacks.label_inference import LabelInference
from retrace_pl.attacks.max_diff import MaxDiff
from retrace_pl.attacks.membership import UnlearningLeaks
from retrace_pl.attacks.prior import prior_only
from retrace_pl.attacks.prior_top_k import PriorTopK
from retrace_pl.attacks.retrace import ReTrace
from retrace_pl.attacks.reversed_guidance import ReversedGuidance
from retrace_pl.attacks.selection import Selection, assemble, select_distribution, select_instance
from retrace_pl.attacks.uia import UIA

__all__ = [
    "UIA",
    "Attack",
    "AttackContext",
    "ClassInference",
    "Finding",
    "HRec",
    "InferenceAttack",
    "LabelInference",
    "MaxDiff",
    "NotApplicable",
    "PriorTopK",
    "ReTrace",
    "Reconstruction",
    "ReversedGuidance",
    "Selection",
    "Shadow",
    "Truth",
    "UnlearningLeaks",
    "assemble",
    "prior_only",
    "select_distribution",
    "select_instance",
]
