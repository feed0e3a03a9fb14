"""Judges candidates: the evaluation-only data, the independent evaluator, metrics per search, leakage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from retrace_pl.audit import avoidable_leakage, excess_leakage, record_leakage
from retrace_pl.files import read_tensors
from retrace_pl.metrics import wilson_interval
from retrace_pl.pipeline.attack_stage import CANDIDATES
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import SearchModels
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR
from retrace_pl.pipeline.train_stages import EVALUATOR, ORIGINAL, load_classifier
from retrace_pl.pipeline.training import torch_device
from retrace_pl.tasks import Answers, Reference, Results, evaluate_candidates


class Judge:
    """The candidates, the evaluation-only data, and the models that judge.

    The models are on the CPU until `take` is given what they and others say about candidates and records.
    """

    def __init__(self, run: AuditRun) -> None:
        self.run = run
        self.device = torch_device(run.config.trainer)
        self.evaluator = load_classifier(run, EVALUATOR)
        self.original = load_classifier(run, ORIGINAL)
        self.answers: Mapping[str, Answers] = {}
        self.candidates = read_tensors(run.folder.path(CANDIDATES))
        self.deleted = Reference.from_datamodule(run.data, "deleted")
        self.domain = self.deleted.domain
        heldout = self.deleted.heldout_inputs
        has_heldout = heldout is not None and len(heldout) > 0
        self.holdout = replace(self.deleted, against="holdout") if has_heldout else None
        self.top_k = len(self.candidates[f"{AUDITED}-0/inputs"])

    @cached_property
    def search_models(self) -> SearchModels:
        """Generator, f+ and the trace scores of the searches, on the device of this process."""
        return SearchModels(self.run)

    def take(self, answers: Mapping[str, Answers]) -> None:
        """Gets to work on the device.

        Args:
            answers: by question, see `retrace_pl.pipeline.questions`.
        """
        self.answers = answers
        self.evaluator.to(self.device)
        self.original.to(self.device)

    def labels(self, name: str) -> list[str]:
        """Labels of all repeats of a search or of the prior control."""
        found = [f"{name}-{repeat}" for repeat in range(self.run.config.audit.repeats)]
        return [label for label in found if f"{label}/inputs" in self.candidates]

    def summary(self, labels: list[str], against: Reference | None = None) -> dict[str, Any]:
        """Means over repeats of the instance-level and distribution-level metrics, and each repeat's own."""
        repeats = [self._repeat(label, against or self.deleted) for label in labels]
        level = self.run.config.audit.level
        return {
            "instance": average([repeat["instance"] for repeat in repeats], 1, level),
            "distribution": average([repeat["distribution"] for repeat in repeats], self._size(labels), level),
            "repeats": repeats,
        }

    def _repeat(self, label: str, reference: Reference) -> dict[str, Any]:
        level = self.run.config.audit.level
        scores, best = self._scores(label)
        settings: dict[str, Any] = {"level": level, "seed": seed_for(self.run.config.seed, "metrics")}

        def judged(kind: str, scores: Tensor | None) -> Results:
            name = f"{label}/{kind}"
            inputs, answers = self.candidates[name], self.answers[name]
            return evaluate_candidates(
                inputs, reference, self.evaluator, self.original, scores=scores, answers=answers, **settings
            )

        return {"instance": judged("instance", best), "distribution": judged("inputs", scores), "label": label}

    def _size(self, labels: list[str]) -> int:
        """Candidates of each repeat."""
        return len(self.candidates[f"{labels[0]}/inputs"])

    def _scores(self, label: str) -> tuple[Tensor | None, Tensor | None]:
        """Trace scores of the candidates [k] and of the instance [1]; the prior's samples have none."""
        if label.startswith(f"{PRIOR}-"):  # no model was asked for them
            return None, None
        own = f"{label}/trace_scores" not in self.candidates  # the attack climbed the trace
        names = ("scores", "instance_score") if own else ("trace_scores", "instance_trace_score")
        return self.candidates[f"{label}/{names[0]}"], self.candidates[f"{label}/{names[1]}"]

    def leakage(self) -> dict[str, Any]:
        """Excess, avoidable and record leakage; one whose control did not run is None."""
        audit, settings = self.run.config.audit, self.bootstrap_settings()
        found = {
            name: [self.outcomes(label) for label in self.labels(name)] for name in (AUDITED, PRIOR, "matched_retrain")
        }
        result: dict[str, Any] = {"excess": None, "avoidable": None, "record": None}
        if found[PRIOR]:
            result["excess"] = excess_leakage(found[AUDITED], found[PRIOR], **settings).as_dict()
        if found["matched_retrain"]:
            result["avoidable"] = avoidable_leakage(found[AUDITED], found["matched_retrain"], **settings).as_dict()
        if self.holdout is not None and "holdout" in audit.controls:
            candidates = [self.candidates[f"{label}/inputs"] for label in self.labels(AUDITED)]
            result["record"] = record_leakage(
                [self.domain.distances(inputs, self.deleted.records).numpy() for inputs in candidates],
                [self.domain.distances(inputs, self.holdout.records).numpy() for inputs in candidates],
                metric=self.domain.record_metric,
                resamples=settings["resamples"],
                level=settings["level"],
                seed=settings["seed"],
            ).as_dict()
        return result

    def compared(self, label: str, controls: Sequence[str], name: str) -> dict[str, Any]:
        """Excess and avoidable leakage of one search of another attack; one whose control did not run is None.

        Args:
            label: label of the search.
            controls: the controls of its own that ran; `matched_retrain` counts.
            name: name of the search, which those of its controls continue.
        """
        settings = self.bootstrap_settings()
        found, prior = [self.outcomes(label)], [self.outcomes(draw) for draw in self.labels(PRIOR)]
        result: dict[str, Any] = {"excess": None, "avoidable": None}
        if prior:
            result["excess"] = excess_leakage(found, prior, **settings).as_dict()
        if "matched_retrain" in controls:
            retrain = [self.outcomes(f"{name}.matched_retrain-0")]
            result["avoidable"] = avoidable_leakage(found, retrain, **settings).as_dict()
        return result

    def bootstrap_settings(self) -> dict[str, Any]:
        """Arguments of every leakage function of `retrace_pl.audit`."""
        audit = self.run.config.audit
        return {
            "resamples": audit.bootstrap_samples,
            "level": audit.level,
            "seed": seed_for(self.run.config.seed, "bootstrap"),
            "metric": self.outcome,
            "higher_is_leak": self.domain.glossary.metrics[self.outcome].direction == "higher",
        }

    @property
    def outcome(self) -> str:
        """What leakage compares: class success, success by distance, or plain closeness where neither is defined."""
        if self.deleted.class_based:
            return "sr_oracle"
        domain = self.domain
        return domain.glossary.closeness if self.deleted.success_threshold is None else domain.success_metric

    @property
    def counts(self) -> bool:
        """Whether the outcome of a candidate is a success or none, rather than a number."""
        return self.outcome != self.domain.glossary.closeness

    def predicted(self, label: str) -> Tensor:
        """Class that the evaluator gives every candidate of a search, int64 [k]."""
        return self.answers[f"{label}/inputs"]["logits"].argmax(1)

    def likeness(self, label: str) -> Any:
        """How much every candidate of a search resembles the deleted data [k], higher for more.

        The evaluator's probability of the deleted classes; where success is not tied to classes, minus the distance to
        the nearest deleted record.
        """
        inputs = self.candidates[f"{label}/inputs"]
        if not self.deleted.class_based:
            return -self.domain.nearest(inputs, self.deleted.records).distance.double().cpu().numpy()
        logits = self.answers[f"{label}/inputs"]["logits"]
        return logits.double().softmax(1)[:, list(self.deleted.target_classes)].sum(1).numpy()

    def outcomes(self, label: str) -> Any:
        """Outcome of every candidate of a search [k]: a boolean, or its closeness to the nearest deleted record."""
        if self.deleted.class_based:
            return self.deleted.is_target(self.predicted(label)).numpy()
        inputs = self.candidates[f"{label}/inputs"]
        nearest = self.domain.nearest(inputs, self.deleted.records).distance
        threshold = self.deleted.success_threshold
        return (self.domain.closeness(nearest) if threshold is None else nearest <= threshold).cpu().numpy()

    def pictures(self, names: list[str]) -> dict[str, Tensor]:
        """Candidates of the first repeats beside their nearest deleted records."""
        shown = {}
        for name in names:
            public, label = shown_name(name), f"{name}-0"
            for kind, stored in (("distribution", "inputs"), ("instance", "instance")):
                shown[f"{public}.{kind}"] = self.candidates[f"{label}/{stored}"]
            shown[f"{public}.nearest"] = self._nearest(shown[f"{public}.distribution"])
            shown[f"{public}.instance_nearest"] = self._nearest(shown[f"{public}.instance"])
            if self.counts:
                shown[f"{public}.success"] = torch.from_numpy(self.outcomes(label)).float()
            scores, _ = self._scores(label)
            if scores is not None:
                shown[f"{public}.scores"] = scores
        return shown

    def texts(self, pictures: dict[str, Tensor]) -> dict[str, list[str]]:
        """What `pictures` say, by the same names; empty for candidates that are looked at."""
        said = {name: self.domain.texts(inputs) for name, inputs in pictures.items() if inputs.ndim > 1}
        return {name: texts for name, texts in said.items() if texts is not None}

    def _nearest(self, inputs: Tensor) -> Tensor:
        return self.deleted.records[self.domain.nearest(inputs, self.deleted.records).position]


def shown_name(name: str) -> str:
    """What the report calls a search: a rival by its name alone, a baseline `baselines.NAME`."""
    if name.startswith("baseline."):
        return name.replace("baseline.", "baselines.", 1)
    return name.removeprefix("rival.")


def average(repeats: list[Results], candidates: int, level: float) -> Results:
    """Mean of each metric over repeats; None where no repeat has it.

    Args:
        repeats: one result per repeat.
        candidates: candidates behind each repeat's success rates.
        level: level of the Wilson intervals, which pool the candidates of all repeats.
    """
    result: Results = {"intervals": {}}
    for name in (name for name in repeats[0] if name != "intervals"):
        values = [repeat[name] for repeat in repeats if repeat[name] is not None]
        result[name] = sum(values) / len(values) if values else None
    for name in repeats[0]["intervals"]:
        total = candidates * len(repeats)
        result["intervals"][name] = list(wilson_interval(round(result[name] * total), total, level))
    return result
