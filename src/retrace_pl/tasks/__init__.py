"""Lightning modules: what is trained or measured batch by batch."""

from __future__ import annotations

from retrace_pl.tasks.base import BaseTask
from retrace_pl.tasks.candidates import evaluate_candidates, heldout_floors
from retrace_pl.tasks.classifier import ClassifierTask
from retrace_pl.tasks.divergence import DivergenceGuard
from retrace_pl.tasks.evaluation import EvaluationTask, Results, ask_judges
from retrace_pl.tasks.generator import GeneratorTask
from retrace_pl.tasks.generator_choice import GeneratorTrainingTask, generator_task
from retrace_pl.tasks.quality import QUALITY_SPLITS, quality_of_answers, unlearning_quality
from retrace_pl.tasks.reference import Reference, reconstruction_floors
from retrace_pl.tasks.scoring import Answers, Scoring, score_together
from retrace_pl.tasks.text_generator import TextGeneratorTask
from retrace_pl.tasks.unlearning import UnlearningTask

__all__ = [
    "QUALITY_SPLITS",
    "Answers",
    "BaseTask",
    "ClassifierTask",
    "DivergenceGuard",
    "EvaluationTask",
    "GeneratorTask",
    "GeneratorTrainingTask",
    "Reference",
    "Results",
    "Scoring",
    "TextGeneratorTask",
    "UnlearningTask",
    "ask_judges",
    "evaluate_candidates",
    "generator_task",
    "heldout_floors",
    "quality_of_answers",
    "reconstruction_floors",
    "score_together",
    "unlearning_quality",
]
