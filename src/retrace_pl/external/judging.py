"""What candidates are compared with, where the user knows what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from retrace_pl.audit import avoidable_leakage, excess_leakage, record_leakage
from retrace_pl.errors import InputError
from retrace_pl.external.inputs import RecordSet
from retrace_pl.external.run import EVALUATOR, ORIGINAL, PairRun
from retrace_pl.metrics import Domain, wilson_interval
from retrace_pl.pipeline.run_folder import seed_for

__all__ = ["Truth", "judge_candidates", "leakages", "target_classes"]

BATCH = 256


@dataclass
class Truth:
    """The deleted records and what follows from them.

    Args:
        domain: Distances and metrics of such records.
        deleted: Deleted records [n, ...].
        labels: Their classes [n] as the models count, where they are known; else zeros.
        targets: Classes whose prediction is a success; empty where they are not known, or are all classes.
        heldout: Unseen records of the same kind [h, ...], where they were given.
        centre: Mean public record, which the centred cosine subtracts; None where records have no mean.
        original: f+ with its preprocessing.
        evaluator: The independent classifier, where one was given.
    """

    domain: Domain
    deleted: Tensor
    labels: Tensor
    targets: tuple[int, ...]
    heldout: Tensor | None
    centre: Tensor | None
    original: nn.Module
    evaluator: nn.Module | None
    threshold: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.threshold = self.domain.success_threshold(self.deleted, self.labels)

    @classmethod
    def of(cls, run: PairRun) -> Truth | None:
        """What is known of the deletion; None where no deleted records were given."""
        if run.deleted is None:
            return None
        targets, labels = target_classes(run, run.deleted)
        return cls(
            domain=run.material.domain,
            deleted=run.deleted.inputs,
            labels=torch.zeros(len(run.deleted), dtype=torch.int64) if labels is None else labels,
            targets=targets if len(targets) < run.classes else (),
            heldout=None if run.heldout is None else run.heldout.inputs,
            centre=run.material.domain.centre(run.public.inputs),
            original=run.models[ORIGINAL],
            evaluator=run.models.get(EVALUATOR),
        )

    @property
    def outcome(self) -> str:
        """What leakage compares: success under the evaluator, closeness of deleted records, or plain closeness."""
        if self.targets and self.evaluator is not None:
            return "sr_oracle"
        return self.domain.glossary.closeness if self.threshold is None else self.domain.success_metric

    @property
    def counts(self) -> bool:
        """Whether the outcome of a candidate is a success or none, rather than a number."""
        return self.outcome != self.domain.glossary.closeness

    def outcomes(self, inputs: Tensor) -> Tensor:
        """The outcome of every candidate [k]: a boolean, or its closeness to the nearest deleted record."""
        if self.outcome == "sr_oracle":
            assert self.evaluator is not None
            return self.recognised(self.evaluator, inputs)
        nearest = self.domain.nearest(inputs, self.deleted).distance
        return self.domain.closeness(nearest) if self.threshold is None else nearest <= self.threshold

    @torch.no_grad()
    def likeness(self, inputs: Tensor) -> Tensor:
        """How much every candidate [k] resembles the deleted records, higher is more, for the judge of `outcome`.

        The evaluator's probability of the deleted classes, or minus the distance to the nearest deleted record.
        """
        if self.outcome != "sr_oracle" or self.evaluator is None:
            return -self.domain.nearest(inputs, self.deleted).distance
        device = device_of(self.evaluator)
        parts = [self.evaluator(part.to(device)).softmax(dim=1).cpu() for part in torch.split(inputs, BATCH)]
        return torch.cat(parts)[:, list(self.targets)].sum(dim=1)

    @torch.no_grad()
    def recognised(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Which inputs a model assigns to a deleted class, booleans [k]."""
        device = device_of(model)
        predicted = torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in torch.split(inputs, BATCH)])
        return torch.isin(predicted, torch.tensor(self.targets))

    def floors(self, size: int) -> dict[str, float | None]:
        """What reconstructions without any model would score, and what unseen records do.

        Args:
            size: How many unseen records are drawn, as many as there are candidates: longest spans grow with that.
        """
        one_kind = self.heldout is not None and len(torch.unique(self.labels)) == 1
        heldout = self.heldout if one_kind else None
        found = self.domain.floors(self.deleted, self.labels, heldout, None, None) | {"heldout_sr_oracle": None}
        if self.heldout is not None:
            if self.evaluator is not None and self.targets:
                found["heldout_sr_oracle"] = float(self.recognised(self.evaluator, self.heldout).double().mean())
            if self.domain.heldout_metrics:
                drawn = torch.randperm(len(self.heldout), generator=torch.Generator().manual_seed(0))[:size]
                unseen = computed(self, self.heldout[drawn])
                found |= {f"heldout_{name}": unseen.get(name) for name in self.domain.heldout_metrics}
        return found


def computed(truth: Truth, inputs: Tensor) -> dict[str, float | None]:
    """Metrics of candidates [k, ...] by the domain's own standards: those that need no model."""
    successes = truth.domain.successes(inputs, truth.deleted, truth.threshold)
    rates: dict[str, float | None] = {name: float(found.double().mean()) for name, found in successes.items()}
    return _values(truth.domain.input_metrics(truth.deleted, truth.centre), inputs) | rates


def device_of(model: nn.Module) -> torch.device:
    """Where a network is; the CPU for one without any tensor."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def target_classes(run: PairRun, records: RecordSet) -> tuple[tuple[int, ...], Tensor | None]:
    """The deleted classes and the records' labels as the models count classes; nothing where that is not known.

    What ``--deleted-classes`` says goes first. Otherwise classes are known by numbers, as in ``digits`` or a folder
    named ``3``, or by the names of the public records' classes where those are the models'.

    Raises:
        InputError: A class beyond those of the models.
    """
    names = [] if records.classes is None else sorted(set(records.records.labels.tolist()))
    public = run.public.classes or ()
    numbers: dict[int, int] = {}
    for label in names:
        name = (records.classes or ())[label]
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
        labels = torch.tensor([numbers[label] for label in records.records.labels.tolist()])
        return targets, labels
    if len(targets) == 1:
        return targets, torch.full((len(records),), targets[0], dtype=torch.int64)
    return targets, None


def judge_candidates(
    inputs: Tensor, scores: Tensor | None, truth: Truth | None, domain: Domain, level: float
) -> dict[str, Any]:
    """Metrics of candidates [k, ...]; without deleted records only those that need none.

    Args:
        inputs: The candidates.
        scores: Their trace scores [k], where a model was asked.
        truth: What was deleted.
        domain: Metrics of such candidates.
        level: Level of the intervals.

    Returns:
        Metrics by the names of an audit's, None where one does not apply, and `intervals`.
    """
    score = None if scores is None else float(scores.double().mean())
    if truth is None:
        return {"score": score, "intervals": {}, **_values(domain.own_metrics(), inputs)}
    found: dict[str, Any] = {"score": score, "intervals": {}, **computed(truth, inputs)}
    successes = domain.successes(inputs, truth.deleted, truth.threshold)
    if truth.targets:
        successes["sr_original"] = truth.recognised(truth.original, inputs)
        if truth.evaluator is not None:
            successes["sr_oracle"] = truth.recognised(truth.evaluator, inputs)
    for name, success in successes.items():
        found[name] = float(success.double().mean())
        found["intervals"][name] = list(wilson_interval(int(success.sum()), len(success), level))
    return found


def _values(metrics: Mapping[str, Metric], inputs: Tensor) -> dict[str, float | None]:
    """What metrics make of candidates; None for one that is not defined for so few."""
    values: dict[str, float | None] = {}
    for name, metric in metrics.items():
        metric.update(inputs)
        value = metric.compute()
        for key, number in (value if isinstance(value, dict) else {name: value}).items():
            plain = float(number)
            values[key] = plain if plain == plain else None
    return values


def leakages(run: PairRun, truth: Truth, candidates: dict[str, list[Tensor]]) -> dict[str, Any]:
    """What the attack found beyond each control, and beyond unseen records of the same kind.

    Args:
        run: The run.
        truth: What was deleted.
        candidates: Arm -> candidates [k, ...] of each repeat.

    Returns:
        `excess`, `avoidable`, `excess_null` and `record`; one whose control did not run is None.
    """
    search = run.settings.search
    seed = seed_for(search.seed, "bootstrap")
    common: dict[str, Any] = {"resamples": search.bootstrap_samples, "level": search.level, "seed": seed}
    domain = truth.domain
    metric = domain.glossary.metrics[truth.outcome]
    compared = common | {"metric": truth.outcome, "higher_is_leak": metric.direction == "higher"}
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
        ours = [domain.distances(one, truth.deleted).numpy() for one in candidates["attack"]]
        theirs = [domain.distances(one, truth.heldout).numpy() for one in candidates["attack"]]
        result["record"] = record_leakage(ours, theirs, metric=domain.record_metric, **common).as_dict()
    return result
