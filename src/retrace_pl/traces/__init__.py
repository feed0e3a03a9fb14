"""Traces: what unlearning left behind in the difference of two models, measured under an access level."""

from retrace_pl.traces.access import SIGNALS, Access
from retrace_pl.traces.calibration import Calibration, calibrate
from retrace_pl.traces.class_inference import (
    CLEAR_LOSS,
    CLEAR_MARGIN,
    KNOWN,
    ClassEvidence,
    class_evidence,
    infer_classes,
    pair_probabilities,
)
from retrace_pl.traces.differentiable import DifferentiableScorer, differentiable_response
from retrace_pl.traces.directional import (
    DirectionalScorer,
    SignedRange,
    directional_gradient,
    directional_loss,
    directional_prediction,
)
from retrace_pl.traces.execution import Execution
from retrace_pl.traces.normalisers import BatchMinMax, FixedQuantile, Normaliser, Rank
from retrace_pl.traces.pair import ModelPair, PairResponse, PairValues
from retrace_pl.traces.reliability import QUANTILES, Reliability, joint_scores, reliability, score_groups, scores_of
from retrace_pl.traces.scorer import Sign, TraceDeltas, TraceScorer, TraceScores, TraceWeights
from retrace_pl.traces.signals import GRADIENT_EPS, RESOLUTION, delta_gradient, delta_loss, delta_prediction
from retrace_pl.traces.weight_fit import FittedWeights, fit_weights

__all__ = [
    "CLEAR_LOSS",
    "CLEAR_MARGIN",
    "GRADIENT_EPS",
    "KNOWN",
    "QUANTILES",
    "RESOLUTION",
    "SIGNALS",
    "Access",
    "BatchMinMax",
    "Calibration",
    "ClassEvidence",
    "DifferentiableScorer",
    "DirectionalScorer",
    "Execution",
    "FittedWeights",
    "FixedQuantile",
    "ModelPair",
    "Normaliser",
    "PairResponse",
    "PairValues",
    "Rank",
    "Reliability",
    "Sign",
    "SignedRange",
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
    "directional_gradient",
    "directional_loss",
    "directional_prediction",
    "fit_weights",
    "infer_classes",
    "joint_scores",
    "pair_probabilities",
    "reliability",
    "score_groups",
    "scores_of",
]
