"""Judge candidates in one call, without log, progress bar or files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from retrace_pl.errors import InputError
from retrace_pl.models import Classifier
from retrace_pl.tasks.evaluation import EvaluationTask, Results
from retrace_pl.tasks.reference import Reference
from retrace_pl.tasks.scoring import Answers

__all__ = ["evaluate_candidates", "heldout_floors"]


class _Judged(Dataset[tuple[Tensor, Answers]]):
    """Candidates with what the networks have said about them."""

    def __init__(self, inputs: Tensor, answers: Answers) -> None:
        self.inputs = inputs
        self.answers = answers

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Answers]:
        return self.inputs[index], {name: values[index] for name, values in self.answers.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notes about devices and loader workers out of the caller's output."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*is available but not used.*")
            warnings.filterwarnings(
                "ignore", message=".*LeafSpec.*", category=FutureWarning
            )  # Lightning 2.6, torch 2.14
            yield
    finally:
        logger.setLevel(level)


def _quiet_trainer(device: torch.device) -> Trainer:
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        inference_mode=False,
    )


def evaluate_candidates(
    inputs: Tensor,
    reference: Reference,
    evaluator: Classifier,
    original: Classifier | None,
    trainer: Trainer | None = None,
    scores: Tensor | None = None,
    batch_size: int = 256,
    answers: Answers | None = None,
    **settings: Any,
) -> Results:
    """Judge candidates quietly: no log, no progress bar, no checkpoint.

    One candidate is an instance-level reconstruction, several are a distribution-level one. Keep one `reference` for
    several calls: it remembers the evaluator's features of the records.

    Args:
        inputs: Candidates, shape [k, ...], on any device.
        reference: What to compare with.
        evaluator: The independent evaluation classifier; its device is used, and kept.
        original: f+, or None to leave out ``sr_original``.
        trainer: A trainer of the caller's, on one device; a quiet one by default.
        scores: Trace scores of the candidates, shape [k]; their mean becomes ``score``.
        batch_size: Candidates per batch.
        answers: What `ask_judges` says about them, where somebody has asked already.
        settings: Passed on to `EvaluationTask`.

    Returns:
        See `Results`.

    Raises:
        InputError: For no candidates, other shapes than the records', or scores of another length.
        RunError: Where a candidate is not finite.
    """
    if len(inputs) == 0:
        raise InputError("there are no candidates to evaluate")
    if scores is not None and len(scores) != len(inputs):
        raise InputError(f"{len(inputs)} candidates have {len(scores)} scores")
    models = [model for model in (evaluator, original) if model is not None]
    places = [next((p.device for p in model.parameters()), torch.device("cpu")) for model in models]
    modes = [model.training for model in models]
    task = EvaluationTask(evaluator, original, reference, **settings)
    # A loader without a generator of its own draws from the global random state.
    rows = inputs.detach().cpu()
    candidates: Dataset[Any] = TensorDataset(rows) if answers is None else _Judged(rows, answers)
    loader = DataLoader(candidates, batch_size=batch_size, generator=torch.Generator())
    try:
        with _quiet():
            runner = trainer if trainer is not None else _quiet_trainer(places[0])
            runner.test(task, loader, verbose=False)
    finally:
        # Lightning leaves what it ran on the CPU and in its own mode; the caller goes on with the same models.
        for model, place, mode in zip(models, places, modes, strict=True):
            model.to(place).train(mode)
    if scores is not None:
        task.results["score"] = float(scores.double().mean())
    return task.results


def heldout_floors(
    reference: Reference, evaluator: Classifier, size: int, *, seed: int = 0, **settings: Any
) -> dict[str, float | None]:
    """What unseen real records of the deleted classes score, for the metrics that the domain asks this of.

    As many of them as there are candidates, because a longest span or the number of different words grows with that.

    Args:
        reference: The deleted and the held-out records; `against` plays no part.
        evaluator: The evaluation classifier.
        size: How many held-out records to draw.
        seed: Seed of the draw, and of the evaluation.
        settings: Passed on to `EvaluationTask`.

    Returns:
        ``heldout_NAME`` for each of the domain's `heldout_metrics`; None where there is no held-out record.
    """
    names, heldout = reference.domain.heldout_metrics, reference.heldout_inputs
    if not names or heldout is None or len(heldout) == 0:
        return {f"heldout_{name}": None for name in names}
    drawn = torch.randperm(len(heldout), generator=torch.Generator().manual_seed(seed))[:size]
    deleted = reference if reference.against == "deleted" else replace(reference, against="deleted")
    results = evaluate_candidates(heldout[drawn], deleted, evaluator, None, seed=seed, **settings)
    return {f"heldout_{name}": results[name] for name in names}
