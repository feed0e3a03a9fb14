"""What turns the numbers of an attack into evidence: controls, intervals, leakage and the verdict."""

from retrace_pl.audit.bootstrap import SINGLE_REPEAT, Estimate, bootstrap_difference, bootstrap_mean
from retrace_pl.audit.controls import CONTROLS, Control, ControlRegistry, get_control, parse_controls
from retrace_pl.audit.facts import Check, Kind, Status, Verdict, VerdictThresholds, lookup, not_finite
from retrace_pl.audit.leakage import Leakage, avoidable_leakage, excess_leakage, expected_nearest, record_leakage
from retrace_pl.audit.model_spread import SINGLE_PAIR, excess_over_pairs, over_forgetting
from retrace_pl.audit.pooling import Cell, combine_leakage
from retrace_pl.audit.pvalues import (
    FDR,
    Significance,
    adjusted_p_values,
    candidate_p_values,
    pair_p_value,
    significance,
)
from retrace_pl.audit.verdict import EXCESSES, decide

__all__ = [
    "CONTROLS",
    "EXCESSES",
    "FDR",
    "SINGLE_PAIR",
    "SINGLE_REPEAT",
    "Cell",
    "Check",
    "Control",
    "ControlRegistry",
    "Estimate",
    "Kind",
    "Leakage",
    "Significance",
    "Status",
    "Verdict",
    "VerdictThresholds",
    "adjusted_p_values",
    "avoidable_leakage",
    "bootstrap_difference",
    "bootstrap_mean",
    "candidate_p_values",
    "combine_leakage",
    "decide",
    "excess_leakage",
    "excess_over_pairs",
    "expected_nearest",
    "get_control",
    "lookup",
    "not_finite",
    "over_forgetting",
    "pair_p_value",
    "parse_controls",
    "record_leakage",
    "significance",
]
