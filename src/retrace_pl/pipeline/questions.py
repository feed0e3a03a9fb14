"""Everything an evaluation asks networks about, so that several devices can share it and nothing is asked twice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from retrace_pl.data import LabelledRecords
from retrace_pl.models import Classifier
from retrace_pl.pipeline.evidence import trace_questions
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.train_stages import EVALUATOR, ORIGINAL, UNLEARNED, load_classifier, retrained_name
from retrace_pl.pipeline.training import make_trainer
from retrace_pl.tasks import QUALITY_SPLITS, Answers, Scoring, ask_judges, quality_of_answers, score_together

SCRATCH = "answers"
"""Folder of the answers of each process, until they are gathered."""

QUALITY_BATCH = 512


def ask_everything(run: AuditRun, judge: Judge) -> bool:
    """Asks every network about every candidate and record that the evaluation needs, on all devices together.

    Always in full precision: what a model was trained with does not change how it is judged.

    Args:
        run: the audit.
        judge: gets the answers, in the first process.

    Returns:
        Whether this is the first process, which goes on to judge.

    Raises:
        RunError: the processes do not see one run folder.
    """
    models = quality_models(run, judge)
    questions = [*candidate_questions(judge), *quality_questions(run, models), *trace_questions(run, judge)]
    trainer = make_trainer(
        replace(run.config.trainer, precision="32-true", sync_batchnorm=False),
        quiet=run.quiet,
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        inference_mode=False,
    )
    answers = score_together(questions, list(models.values()), trainer, run.folder.path(SCRATCH))
    if answers is None:
        return False
    judge.take(answers)
    return True


def candidate_questions(judge: Judge) -> list[Scoring]:
    """What the evaluator and f+ say about the candidates and the best instance of every search."""
    ask = partial(ask_judges, evaluator=judge.evaluator, original=judge.original)
    names = [name for name in judge.candidates if name.endswith(("/inputs", "/instance"))]
    return [Scoring.of(name, judge.candidates[name], ask) for name in names]


def quality_models(run: AuditRun, judge: Judge) -> dict[str, Classifier]:
    """The classifiers whose utility and forgetting are measured, by the name in `metrics.json`."""
    models = {ORIGINAL: judge.original, UNLEARNED: load_classifier(run, UNLEARNED), EVALUATOR: judge.evaluator}
    if "matched_retrain" in run.config.audit.controls:
        models["retrained"] = load_classifier(run, retrained_name(0))
    return models


def quality_questions(run: AuditRun, models: dict[str, Classifier]) -> list[Scoring]:
    """Their logits for the records that quality is measured on."""
    splits = {name: run.data.split(name) for name in QUALITY_SPLITS}
    return [
        Scoring(name, len(records), partial(_rows, records), partial(_logits, model), QUALITY_BATCH)
        for split, records in splits.items()
        for name, model in ((f"quality/{name}/{split}", model) for name, model in models.items())
    ]


def quality_answers(run: AuditRun, judge: Judge) -> dict[str, dict[str, float]]:
    """Utility, forgetting and membership leakage of every classifier; see `unlearning_quality`.

    Args:
        run: the audit.
        judge: with the answers.
    """
    names = dict.fromkeys(name.split("/")[1] for name in judge.answers if name.startswith("quality/"))
    return {
        name: quality_of_answers(
            name, run.data, {split: judge.answers[f"quality/{name}/{split}"]["logits"] for split in QUALITY_SPLITS}
        )
        for name in names
    }


def _rows(records: LabelledRecords, start: int, stop: int) -> Tensor:
    inputs: Tensor = records.subset(torch.arange(start, stop)).inputs
    return inputs


def _logits(model: nn.Module, inputs: Tensor) -> Answers:
    return {"logits": model(inputs)}
