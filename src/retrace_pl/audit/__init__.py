"""What turns the numbers of an attack into evidence: controls, intervals, leakage and the verdict."""

from retrace_pl.audit.bootstrap import SINGLE_REPEAT, Estimate, bootstrap_difference, bootstrap_mean
from retrace_pl.audit.controls import CONTROLS, Control, ControlRegistry, get_control, parse_controls
from retrace_pl.audit.leakage import Leakage, avoidable_leakage, excess_leakage, expected_nearest, record_leakage
from retrace_pl.audit.verdict import Check, Status, Verdict, VerdictThresholds, decide, lookup, not_finite

__all__ = [
    "CONTROLS",
    "SINGLE_REPEAT",
    "Check",
    "Control",
    "ControlRegistry",
    "Estimate",
    "Leakage",
    "Status",
    "Verdict",
    "VerdictThresholds",
    "avoidable_leakage",
    "bootstrap_difference",
    "bootstrap_mean",
    "decide",
    "excess_leakage",
    "expected_nearest",
    "get_control",
    "lookup",
    "not_finite",
    "parse_controls",
    "record_leakage",
]
