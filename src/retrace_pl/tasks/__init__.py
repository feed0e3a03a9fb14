"""Lightning modules: what is trained or measured batch by batch."""

from __future__ import annotations

from retrace_pl.tasks.base import BaseTask
from retrace_pl.tasks.classifier import ClassifierTask
from retrace_pl.tasks.divergence import DivergenceGuard
from retrace_pl.tasks.evaluation import (
    EvaluationTask,
    Reference,
    Results,
    evaluate_candidates,
    heldout_floors,
    reconstruction_floors,
)
from retrace_pl.tasks.generator import GeneratorTask
from retrace_pl.tasks.generator_choice import GeneratorTrainingTask, generator_task
from retrace_pl.tasks.quality import unlearning_quality
from retrace_pl.tasks.text_generator import TextGeneratorTask
from retrace_pl.tasks.unlearning import UnlearningTask

__all__ = [
    "BaseTask",
    "ClassifierTask",
    "DivergenceGuard",
    "EvaluationTask",
    "GeneratorTask",
    "GeneratorTrainingTask",
    "Reference",
    "Results",
    "TextGeneratorTask",
    "UnlearningTask",
    "evaluate_candidates",
    "generator_task",
    "heldout_floors",
    "reconstruction_floors",
    "unlearning_quality",
]
