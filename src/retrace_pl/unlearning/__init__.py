"""Unlearning methods: one small file each, driven by `retrace_pl.tasks.UnlearningTask` or by any loop of your own."""

from retrace_pl.unlearning.adapt import as_method
from retrace_pl.unlearning.base import Batch, Batches, UnlearningMethod
from retrace_pl.unlearning.gradient_ascent import GradientAscent
from retrace_pl.unlearning.identity import Identity
from retrace_pl.unlearning.negative_gradient import NegativeGradient
from retrace_pl.unlearning.registry import METHODS, get_method
from retrace_pl.unlearning.retain_finetune import RetainFineTune
from retrace_pl.unlearning.retrain import Retrain
from retrace_pl.unlearning.search_space import Choice, Span

__all__ = [
    "METHODS",
    "Batch",
    "Batches",
    "Choice",
    "GradientAscent",
    "Identity",
    "NegativeGradient",
    "RetainFineTune",
    "Retrain",
    "Span",
    "UnlearningMethod",
    "as_method",
    "get_method",
]
