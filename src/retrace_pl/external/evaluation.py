"""The stages that judge and report: metrics.json with a verdict or, without deleted records, with what can be said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace_pl.audit import decide, not_finite
from retrace_pl.external.black_box import BlackBox
from retrace_pl.external.generator import load_generator
from retrace_pl.external.judging import Truth, device_of, judge_candidates, leakages, target_classes
from retrace_pl.external.null_pair import against_null
from retrace_pl.external.run import CHECKS, ORIGINAL, REFERENCE, UNLEARNED, PairRun
from retrace_pl.external.searches import INFERENCE, PairModels
from retrace_pl.files import read_json, read_tensors, write_json, write_tensors
from retrace_pl.pipeline.attack_stage import CANDIDATES, SEARCHES
from retrace_pl.pipeline.evaluate_stage import EVALUATION, METRICS, TEXTS, package_versions
from retrace_pl.pipeline.judge import average
from retrace_pl.pipeline.report_stage import write_views
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR
from retrace_pl.pipeline.training import torch_device
from retrace_pl.report.progress import steps
from retrace_pl.traces import calibrate

__all__ = ["evaluate", "report"]

_PICTURES = (("distribution", "inputs", "nearest"), ("instance", "instance", "instance_nearest"))
"""Pictures in the report: what it calls them, the tensor, and what it calls their nearest deleted records."""

SHOWN_TRACES = 2000
"""Records of a group that are scored for the report, at most."""


def evaluate(run: PairRun) -> list[str]:
    """Judges every reconstruction as far as the user knows what was deleted, and decides what can be said."""
    device = torch_device(run.settings.search.trainer)
    for model in run.models.values():
        model.to(device)
    candidates = read_tensors(run.folder.path(CANDIDATES))
    ran: dict[str, Any] = read_json(run.folder.path(SEARCHES))
    searches = {label: search for label, search in ran.items() if search.get("applicable", True)}
    truth = Truth.of(run)
    arms = _Arms(run, candidates, searches, truth)
    names = list(dict.fromkeys(str(search["name"]) for search in searches.values()))
    judged = {name: arms.summary(name) for name in steps(names)}
    judged[AUDITED]["score_spread"] = max(searches[label]["score_spread"] for label in arms.labels(AUDITED))
    judged["identity"] |= {key: searches["identity-0"][key] for key in ("max_trace", "score_spread")}
    models = PairModels(run)
    tensors, calibration = _traces(run, models, truth)
    significances, p_values = against_null(models, arms.inputs(), truth)
    checks: Mapping[str, Any] = read_json(run.folder.path(CHECKS))
    metrics: dict[str, Any] = {
        "schema": 1,
        "name": run.settings.search.name,
        "judged": truth is not None,
        "setting": _setting(run, models, searches[f"{AUDITED}-0"]["signals"]),
        **run.material.domain.facts(),
        **run.material.encoding(),
        "models": _models(run, checks),
        "classes": list(_class_names(run)),
        **_quality(run, truth),
        "calibration": calibration,
        "attack": judged[AUDITED],
        "controls": {name: judged[name] for name in (PRIOR, "matched_retrain", "null", "identity") if name in judged},
        "rivals": {
            search["name"].removeprefix("rival."): judged.get(search["name"], search)
            for search in ran.values()
            if search["name"].startswith("rival.")
        },
        "inferences": read_json(run.folder.path(INFERENCE)),
        "significance": significances,
        "gaps": {name: arms.gap(name) for name in names},
        "floors": truth.floors(run.top_k) if truth is not None else {},
        "leakage": leakages(run, truth, arms.inputs()) if truth is not None else {},
        "budget": {
            "queries": run.settings.search.queries,
            "repeats": run.settings.search.repeats,
            "top_k": len(candidates[f"{AUDITED}-0/inputs"]),
            **_sent(run),
        },
        "seeds": {
            "attack": run.settings.search.seed,
            "search": [searches[label]["seed"] for label in arms.labels(AUDITED)],
        },
        "versions": package_versions(),
        "seconds": run.folder.seconds(),
        "config_hash": run.key("evaluate"),
        "thresholds": asdict(run.settings.search.thresholds),
    }
    metrics["not_finite"] = not_finite(metrics)
    verdict = decide(metrics)
    words = {"verdict": str(verdict.status), "verdict_reason": verdict.reason}
    metrics = {"schema": 1, **words, "verdict_kinds": [str(kind) for kind in verdict.kinds], **metrics}
    metrics["checks"] = [asdict(check) for check in verdict.checks]
    pictures = arms.pictures(names)
    write_tensors(run.folder.path(EVALUATION), {**pictures, **tensors, **p_values})
    texts = {name: run.material.domain.texts(inputs) for name, inputs in pictures.items() if inputs.ndim > 1}
    said = {name: told for name, told in texts.items() if told is not None}
    if said:
        write_json(run.folder.path(TEXTS), said)
    write_json(run.folder.path(METRICS), metrics)
    return [METRICS, EVALUATION, *([TEXTS] if said else [])]


def report(run: PairRun) -> list[str]:
    """Writes report.html, overview.png and TensorBoard's evaluation runs from the files of the earlier stages."""
    return write_views(run.folder, load_generator(run), run.material.domain.texts)


class _Arms:
    """The candidates of every arm of the comparison, and their metrics."""

    def __init__(
        self, run: PairRun, candidates: dict[str, Tensor], searches: Mapping[str, Any], truth: Truth | None
    ) -> None:
        self.run = run
        self.candidates = candidates
        self.searches = searches
        self.truth = truth

    def labels(self, name: str) -> list[str]:
        """Labels of all repeats of an arm."""
        return [label for label, search in self.searches.items() if search["name"] == name]

    def summary(self, name: str) -> dict[str, Any]:
        """Means over repeats of the instance-level and distribution-level metrics, and each repeat's own."""
        level = self.run.settings.search.level
        repeats = [self._repeat(label, scored=name != PRIOR) for label in self.labels(name)]
        size = len(self.candidates[f"{self.labels(name)[0]}/inputs"])
        return {
            "instance": average([repeat["instance"] for repeat in repeats], 1, level),
            "distribution": average([repeat["distribution"] for repeat in repeats], size, level),
            "repeats": repeats,
        }

    def _repeat(self, label: str, *, scored: bool) -> dict[str, Any]:
        domain, level = self.run.material.domain, self.run.settings.search.level
        scores = self.candidates[f"{label}/scores"] if scored else None
        best = self.candidates[f"{label}/instance_score"] if scored else None
        return {
            "instance": judge_candidates(self.candidates[f"{label}/instance"], best, self.truth, domain, level),
            "distribution": judge_candidates(self.candidates[f"{label}/inputs"], scores, self.truth, domain, level),
            "label": label,
        }

    def inputs(self) -> dict[str, list[Tensor]]:
        """Candidates of each repeat by arm."""
        names = dict.fromkeys(search["name"] for search in self.searches.values())
        return {name: [self.candidates[f"{label}/inputs"] for label in self.labels(name)] for name in names}

    def gap(self, name: str) -> dict[str, Any]:
        """How far the two models of an arm are apart on what it selected, and what its first model sees there."""
        records = [self.searches[label] for label in self.labels(name)]
        labels = np.sum([record["labels"] for record in records], axis=0)
        return {"gap": float(np.mean([record["gap"] for record in records])), "labels": labels.tolist()}

    def pictures(self, names: list[str]) -> dict[str, Tensor]:
        """Candidates of the first repeats, beside their nearest deleted records where there are any."""
        shown: dict[str, Tensor] = {}
        for name in names:
            arm, label = name.removeprefix("rival."), self.labels(name)[0]
            for kind, stored, nearest in _PICTURES:
                inputs = self.candidates[f"{label}/{stored}"]
                shown[f"{arm}.{kind}"] = inputs
                if self.truth is not None:
                    position = self.truth.domain.nearest(inputs, self.truth.deleted).position
                    shown[f"{arm}.{nearest}"] = self.truth.deleted[position]
            if name != PRIOR:
                shown[f"{arm}.scores"] = self.candidates[f"{label}/scores"]
            if self.truth is not None and self.truth.counts:
                shown[f"{arm}.success"] = self.truth.outcomes(shown[f"{arm}.distribution"]).float()
        return shown


def _traces(run: PairRun, models: PairModels, truth: Truth | None) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Scores of public, deleted and unseen records for the report, and how well they tell deleted from public ones."""
    scorer = models.scorer(UNLEARNED)
    groups = {"public": models.public}
    if truth is not None:
        groups["forget"] = truth.deleted
        if truth.heldout is not None:
            groups["unseen"] = truth.heldout
    found: dict[str, Tensor] = {}
    for name, inputs in groups.items():
        keep = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:SHOWN_TRACES]
        scored = scorer(inputs[keep], scorer.signals)
        values = {signal: value for signal, value in scored._asdict().items() if value is not None}
        found |= {f"traces.{name}.{signal}": value.cpu() for signal, value in values.items()}
    calibration = None if truth is None else calibrate(scorer, truth.deleted, models.public).to_dict()
    return found, calibration


def _quality(run: PairRun, truth: Truth | None) -> dict[str, Any]:
    """Share of the deleted records that each model gets right, where their classes are known."""
    empty: dict[str, Any] = {"original": None, "unlearning": None, "retrained": None}
    if truth is None or run.deleted is None or not truth.targets:
        return empty
    _, labels = target_classes(run, run.deleted)
    if labels is None:
        return empty
    keys = {ORIGINAL: "original", UNLEARNED: "unlearning", REFERENCE: "retrained"}
    present = {role: key for role, key in keys.items() if role in run.models}
    return empty | {key: {"forget_acc": _accuracy(run, role, truth, labels)} for role, key in present.items()}


@torch.no_grad()
def _accuracy(run: PairRun, role: str, truth: Truth, labels: Tensor) -> float:
    device = device_of(run.models[role])
    predicted = [run.models[role](part.to(device)).argmax(dim=1).cpu() for part in torch.split(truth.deleted, 256)]
    return float((torch.cat(predicted) == labels).double().mean())


def _setting(run: PairRun, models: PairModels, signals: list[str]) -> dict[str, Any]:
    search, data = run.settings.search, run.settings.data
    deleted = None if run.deleted is None else target_classes(run, run.deleted)[0]
    names = _class_names(run)
    return {
        "access": str(run.access),
        "data": None if run.deleted is None else run.deleted.title,
        "public": run.public.title,
        "deletion": data.deletion,
        "deleted_classes": [names[index] for index in deleted or ()],
        "deleted_records": None if run.deleted is None else len(run.deleted),
        "public_records": len(run.public),
        "public_includes_deleted": _public_includes(run, deleted),
        "unlearning": "a method that was not told",
        "searcher": type(search.searcher).__name__,
        "attack": type(search.attack).__name__,
        "generator": type(models.generator).__name__,
        "generator_weights": "brought along"
        if run.settings.generator_weights
        else f"trained on the public {run.material.noun}",
        "classifier": run.opened[ORIGINAL].format,
        "models": {role: model.format for role, model in run.opened.items()},
        "normaliser": type(search.traces.normaliser).__name__,
        "sign": search.traces.sign,
        "signal": search.traces.signal,
        "signals": signals,
        "tau": search.latent.tau,
        "preprocessing": {name: value for name, value in run.material.facts().items() if value is not None},
    }


def _public_includes(run: PairRun, deleted: tuple[int, ...] | None) -> bool | None:
    """Whether the public records have examples of the deleted classes; None where nobody knows."""
    names = run.public.classes
    if not deleted or names is None:
        return None
    shown = {names[label] for label in torch.unique(run.public.records.labels).tolist()}
    return any(_class_names(run)[index] in shown for index in deleted)


def _class_names(run: PairRun) -> tuple[str, ...]:
    """The public records' class names where there is one for each class of the models, else numbers."""
    names = run.public.classes
    return names if names is not None and len(names) == run.classes else tuple(map(str, range(run.classes)))


def _models(run: PairRun, checks: Mapping[str, Any]) -> dict[str, Any]:
    """What the first batch has told of every model."""
    names = {role: "retrained" if role == REFERENCE else role for role in run.opened}
    return {name: {**checks["models"][role], "test_acc": None} for role, name in names.items()}


def _sent(run: PairRun) -> dict[str, Any]:
    """What black boxes were sent, failed attempts and earlier runs in this folder included."""
    boxes = {role: model.module for role, model in run.opened.items() if isinstance(model.module, BlackBox)}
    return {f"sent_to_{role}": f"{box.store.asked:,} of at most {box.budget:,}" for role, box in boxes.items()}
