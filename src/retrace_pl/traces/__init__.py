"""Traces: what unlearning left behind in the difference of two models, measured under an access level."""

from retrace_pl.traces.access import SIGNALS, Access
from retrace_pl.traces.calibration import Calibration, calibrate
from retrace_pl.traces.class_inference import (
    CLEAR_GAP,
    GAP_OFFSET,
    ClassEvidence,
    class_evidence,
    infer_classes,
    pair_probabilities,
)
from retrace_pl.traces.differentiable import DifferentiableScorer, differentiable_response
from retrace_pl.traces.normalisers import BatchMinMax, FixedQuantile, Normaliser, Rank
from retrace_pl.traces.pair import ModelPair, PairResponse, PairValues
from retrace_pl.traces.scorer import Sign, TraceDeltas, TraceScorer, TraceScores, TraceWeights
from retrace_pl.traces.signals import GRADIENT_EPS, RESOLUTION, delta_gradient, delta_loss, delta_prediction

__all__ = [
    "CLEAR_GAP",
    "GAP_OFFSET",
    "GRADIENT_EPS",
    "RESOLUTION",
    "SIGNALS",
    "Access",
    "BatchMinMax",
    "Calibration",
    "ClassEvidence",
    "DifferentiableScorer",
    "FixedQuantile",
    "ModelPair",
    "Normaliser",
    "PairResponse",
    "PairValues",
    "Rank",
    "Sign",
    "TraceDeltas",
    "TraceScorer",
    "TraceScores",
    "TraceWeights",
    "calibrate",
    "class_evidence",
    "delta_gradient",
    "delta_loss",
    "delta_prediction",
    "differentiable_response",
    "infer_classes",
    "pair_probabilities",
]
