"""What candidates are compared with, where the user knows what was deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.audit import avoidable_leakage, excess_leakage, record_leakage
from retrace_pl.errors import InputError
from retrace_pl.external.images import ImageSet
from retrace_pl.external.run import EVALUATOR, ORIGINAL, PairRun
from retrace_pl.metrics import (
    SSIM,
    CentredCosine,
    Diversity,
    distance_matrix,
    intra_class_mse,
    mse_floors,
    nearest_records,
    pairwise_mse,
    ssim_window,
    wilson_interval,
)
from retrace_pl.metrics.distances import cross_pairwise_mse
from retrace_pl.pipeline.run_folder import seed_for

__all__ = ["Truth", "judge_candidates", "leakages", "target_classes"]

BATCH = 256


@dataclass
class Truth:
    """The deleted images and what follows from them.

    Args:
        deleted: Deleted images [n, C, S, S].
        labels: Their classes [n] as the models count, where they are known; else zeros.
        targets: Classes whose prediction is a success; empty where they are not known, or are all classes.
        heldout: Unseen images of the same kind [h, C, S, S], where they were given.
        centre: Mean public image, which the centred cosine subtracts.
        original: f+ with its preprocessing.
        evaluator: The independent classifier, where one was given.
    """

    deleted: Tensor
    labels: Tensor
    targets: tuple[int, ...]
    heldout: Tensor | None
    centre: Tensor
    original: nn.Module
    evaluator: nn.Module | None
    success_mse: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.success_mse = intra_class_mse(self.deleted, self.labels)

    @classmethod
    def of(cls, run: PairRun) -> Truth | None:
        """What is known of the deletion; None where no deleted images were given."""
        if run.deleted is None:
            return None
        targets, labels = target_classes(run, run.deleted)
        return cls(
            deleted=run.deleted.inputs,
            labels=torch.zeros(len(run.deleted), dtype=torch.int64) if labels is None else labels,
            targets=targets if len(targets) < run.classes else (),
            heldout=None if run.heldout is None else run.heldout.inputs,
            centre=run.public.inputs.mean(dim=0),
            original=run.models[ORIGINAL],
            evaluator=run.models.get(EVALUATOR),
        )

    @property
    def outcome(self) -> str:
        """What leakage compares: success under the evaluator, closeness of deleted images, or plain distance."""
        if self.targets and self.evaluator is not None:
            return "sr_oracle"
        return "mse" if self.success_mse is None else "sr_mse"

    def outcomes(self, inputs: Tensor) -> Tensor:
        """The outcome of every candidate [k]: a boolean, or its distance to the nearest deleted image."""
        if self.outcome == "sr_oracle":
            assert self.evaluator is not None
            return self.recognised(self.evaluator, inputs)
        nearest = nearest_records(inputs, self.deleted).mse
        return nearest if self.success_mse is None else nearest <= self.success_mse

    @torch.no_grad()
    def likeness(self, inputs: Tensor) -> Tensor:
        """How much every candidate [k] resembles the deleted images, higher is more, for the judge of `outcome`.

        The evaluator's probability of the deleted classes, or minus the distance to the nearest deleted image.
        """
        if self.outcome != "sr_oracle" or self.evaluator is None:
            return -nearest_records(inputs, self.deleted).mse
        device = next((tensor.device for tensor in self.evaluator.buffers()), torch.device("cpu"))
        parts = [self.evaluator(part.to(device)).softmax(dim=1).cpu() for part in torch.split(inputs, BATCH)]
        return torch.cat(parts)[:, list(self.targets)].sum(dim=1)

    @torch.no_grad()
    def recognised(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Which inputs a model assigns to a deleted class, booleans [k]."""
        device = next((tensor.device for tensor in model.buffers()), torch.device("cpu"))
        predicted = torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in torch.split(inputs, BATCH)])
        return torch.isin(predicted, torch.tensor(self.targets))

    def floors(self) -> dict[str, float | None]:
        """What reconstructions without any model would score."""
        one_kind = self.heldout is not None and len(torch.unique(self.labels)) == 1
        diversity = float(pairwise_mse(self.deleted))
        found = mse_floors(self.deleted, self.labels, self.heldout if one_kind else None)
        found |= {"deleted_diversity": diversity if diversity == diversity else None, "heldout_sr_oracle": None}
        if self.evaluator is not None and self.targets and self.heldout is not None:
            found["heldout_sr_oracle"] = float(self.recognised(self.evaluator, self.heldout).double().mean())
        return found


def target_classes(run: PairRun, images: ImageSet) -> tuple[tuple[int, ...], Tensor | None]:
    """The deleted classes and the images' labels as the models count classes; nothing where that is not known.

    What ``--deleted-classes`` says goes first. Otherwise classes are known by numbers, as in ``digits`` or a folder
    named ``3``, or by the names of the public images' classes where those are the models'.

    Raises:
        InputError: A class beyond those of the models.
    """
    names = [] if images.classes is None else sorted(set(images.tensors.labels.tolist()))
    public = run.public.classes or ()
    numbers: dict[int, int] = {}
    for label in names:
        name = (images.classes or ())[label]
        if name.isdecimal():
            numbers[label] = int(name)
        elif name in public and len(public) == run.classes:
            numbers[label] = public.index(name)
    known = len(names) > 0 and len(numbers) == len(names)
    declared = run.settings.data.deleted_classes
    targets = declared if declared is not None else tuple(sorted(numbers.values())) if known else ()
    if targets and max(targets) >= run.classes:
        raise InputError(
            f"--deleted-classes: class {max(targets)} is beyond the {run.classes} of the models, which count from 0"
        )
    if known:
        labels = torch.tensor([numbers[label] for label in images.tensors.labels.tolist()])
        return targets, labels
    if len(targets) == 1:
        return targets, torch.full((len(images),), targets[0], dtype=torch.int64)
    return targets, None


def judge_candidates(inputs: Tensor, scores: Tensor | None, truth: Truth | None, level: float) -> dict[str, Any]:
    """Metrics of candidates [k, C, S, S]; without deleted images only those that need none.

    Args:
        inputs: The candidates.
        scores: Their trace scores [k], where a model was asked.
        truth: What was deleted.
        level: Level of the intervals.

    Returns:
        Metrics by the names of an audit's, None where one does not apply, and `intervals`.
    """
    found: dict[str, Any] = {
        "score": None if scores is None else float(scores.double().mean()),
        "diversity": _diversity(inputs),
        "intervals": {},
    }
    if truth is None:
        return found
    nearest = nearest_records(inputs, truth.deleted).mse
    found |= {"mse": float(nearest.mean()), "pairwise_mse": float(cross_pairwise_mse(inputs, truth.deleted))}
    cosine = CentredCosine(truth.deleted, truth.centre)
    cosine.update(inputs)
    found["cs"] = float(cosine.compute())
    if ssim_window(tuple(inputs.shape[1:])) is not None:
        similarity = SSIM(truth.deleted)
        similarity.update(inputs)
        found["ssim"] = float(similarity.compute())
    successes: dict[str, Tensor] = {}
    if truth.success_mse is not None:
        successes["sr_mse"] = nearest <= truth.success_mse
    if truth.targets:
        successes["sr_original"] = truth.recognised(truth.original, inputs)
        if truth.evaluator is not None:
            successes["sr_oracle"] = truth.recognised(truth.evaluator, inputs)
    for name, success in successes.items():
        found[name] = float(success.double().mean())
        found["intervals"][name] = list(wilson_interval(int(success.sum()), len(success), level))
    return found


def _diversity(inputs: Tensor) -> float | None:
    metric = Diversity()
    metric.update(inputs)
    value = float(metric.compute())
    return value if value == value else None


def leakages(run: PairRun, truth: Truth, candidates: dict[str, list[Tensor]]) -> dict[str, Any]:
    """What the attack found beyond each control, and beyond unseen images of the same kind.

    Args:
        run: The run.
        truth: What was deleted.
        candidates: Arm -> candidates [k, C, S, S] of each repeat.

    Returns:
        `excess`, `avoidable`, `excess_null` and `record`; one whose control did not run is None.
    """
    search = run.settings.search
    seed = seed_for(search.seed, "bootstrap")
    common: dict[str, Any] = {"resamples": search.bootstrap_samples, "level": search.level, "seed": seed}
    compared = common | {"metric": truth.outcome, "higher_is_leak": truth.outcome != "mse"}
    outcomes = {name: [truth.outcomes(one).numpy() for one in repeats] for name, repeats in candidates.items()}
    result: dict[str, Any] = {}
    for name, control, compare in (
        ("excess", "prior", excess_leakage),
        ("avoidable", "matched_retrain", avoidable_leakage),
        ("excess_null", "null", excess_leakage),
    ):
        present = control in outcomes
        result[name] = compare(outcomes["attack"], outcomes[control], **compared).as_dict() if present else None
    result["record"] = None
    if truth.heldout is not None:
        ours = [distance_matrix(one, truth.deleted).numpy() for one in candidates["attack"]]
        theirs = [distance_matrix(one, truth.heldout).numpy() for one in candidates["attack"]]
        result["record"] = record_leakage(ours, theirs, **common).as_dict()
    return result
