"""The stage that compares what was found with what was deleted, and writes metrics.json with the verdict."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from retrace_pl.audit import decide, not_finite
from retrace_pl.errors import RunError
from retrace_pl.files import read_json, write_json, write_tensors
from retrace_pl.models import Classifier
from retrace_pl.pipeline.attack_stage import CANDIDATES, SEARCHES
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.judge_others import judged_baselines, judged_inferences
from retrace_pl.pipeline.other_attacks import BASELINE
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import CALIBRATION, make_scorer
from retrace_pl.pipeline.search_plan import AUDITED
from retrace_pl.pipeline.train_stages import EVALUATOR, ORIGINAL, UNLEARNED, load_classifier, retrained_name
from retrace_pl.tasks import reconstruction_floors, unlearning_quality

METRICS, EVALUATION = "metrics.json", "evaluation.safetensors"
SHOWN_TRACES = 2000
PACKAGES = (
    "retrace_pl",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "gymnasium",
    "stable-baselines3",
    "numpy",
    "scikit-learn",
)


def evaluate(run: AuditRun) -> list[str]:
    """Judges every reconstruction with the independent evaluator and decides the verdict."""
    judge = Judge(run)
    searches = read_json(run.folder.path(SEARCHES))
    names = [name for name in _names(searches.values()) if not name.startswith(f"{BASELINE}.")]
    judged = {
        name: judge.summary([label for label, search in searches.items() if search["name"] == name]) for name in names
    }
    if AUDITED not in judged:
        raise RunError(f"{run.folder.path(CANDIDATES)} holds no attack; run `retrace attack` again")
    controls: dict[str, Any] = {
        name: judged[name] for name in ("prior", "matched_retrain", "identity") if name in judged
    }
    if "identity" in controls:
        controls["identity"] |= {key: searches["identity-0"][key] for key in ("max_trace", "score_spread")}
    if "holdout" in run.config.audit.controls and judge.holdout is not None:
        controls["holdout"] = judge.summary(judge.labels(AUDITED), against=judge.holdout)
    audited = judged[AUDITED]
    audited["score_spread"] = max(searches[label]["score_spread"] for label in judge.labels(AUDITED))
    quality = _quality(run, judge)
    metrics: dict[str, Any] = {
        "schema": 1,
        "name": run.config.name,
        "setting": _setting(run, searches[f"{AUDITED}-0"]["signals"]),
        "splits": run.data.class_counts(),
        "dropped_copies": run.data.dropped_copies,
        "models": {name: {"test_acc": values["test_acc"]} for name, values in quality.items()},
        "unlearning": quality[UNLEARNED],
        "original": quality[ORIGINAL],
        "retrained": quality.get("retrained"),
        "calibration": read_json(run.folder.path(CALIBRATION)),
        "attack": audited,
        "controls": controls,
        "rivals": {name.removeprefix("rival."): judged[name] for name in names if name.startswith("rival.")},
        "baselines": judged_baselines(run, judge, searches),
        "inferences": judged_inferences(run, judge),
        "floors": reconstruction_floors(judge.deleted, judge.evaluator),
        "leakage": judge.leakage(),
        "budget": {
            "queries": run.config.queries,
            "repeats": run.config.audit.repeats,
            "refinement": _refinement(run),
            "top_k": judge.top_k,
        },
        "seeds": {
            "audit": run.config.seed,
            "data": run.config.data.seed,
            "search": [searches[label]["seed"] for label in judge.labels(AUDITED)],
        },
        "versions": _versions(),
        "seconds": run.folder.seconds(),
        "config_hash": run.key("evaluate"),
    }
    metrics["thresholds"] = asdict(run.config.audit.thresholds)
    metrics["not_finite"] = not_finite(metrics)
    verdict = decide(metrics)
    metrics = {"schema": 1, "verdict": str(verdict.status), "verdict_reason": verdict.reason, **metrics}
    metrics["checks"] = [
        {"name": check.name, "value": check.value, "threshold": check.threshold, "passed": check.passed}
        for check in verdict.checks
    ]
    shown = _names(search for search in searches.values() if search.get("applicable", True))
    write_tensors(run.folder.path(EVALUATION), {**judge.pictures(shown), **_traces(run, judge)})
    write_json(run.folder.path(METRICS), metrics)
    return [METRICS, EVALUATION]


def _names(searches: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(search["name"] for search in searches))


def _quality(run: AuditRun, judge: Judge) -> dict[str, dict[str, float]]:
    models: dict[str, Classifier] = {
        ORIGINAL: judge.original,
        UNLEARNED: load_classifier(run, UNLEARNED),
        EVALUATOR: judge.evaluator,
    }
    if "matched_retrain" in run.config.audit.controls:
        models["retrained"] = load_classifier(run, retrained_name(0))
    return {name: unlearning_quality(model, run.data, device=judge.device) for name, model in models.items()}


def _traces(run: AuditRun, judge: Judge) -> dict[str, Tensor]:
    """Signals and score on deleted, retained and unseen records, for the report's histograms."""
    scorer = make_scorer(run, judge.original, load_classifier(run, UNLEARNED).to(judge.device))
    scorer.fit(run.data.split("public").inputs)
    heldout = judge.deleted.heldout_inputs
    groups = {
        "forget": run.data.split("forget").inputs,
        "retain": run.data.split("retain").inputs,
        "unseen": heldout if heldout is not None and len(heldout) else run.data.split("test").inputs,
    }
    found: dict[str, Tensor] = {}
    for group, inputs in groups.items():
        keep = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:SHOWN_TRACES]
        scores = scorer(inputs[keep], scorer.pair.access.signals)
        found |= {f"traces.{group}.{name}": value for name, value in scores._asdict().items() if value is not None}
    return found


def _setting(run: AuditRun, signals: list[str]) -> dict[str, Any]:
    config = run.config
    return {
        "access": str(config.access),
        "data": config.data.source.title,
        "deletion": run.data.deletion,
        "deleted_classes": [run.data.classes[index] for index in run.data.deleted_classes],
        "deleted_records": len(run.data.split("forget")),
        "public_includes_deleted": run.data.public_includes_deleted,
        "unlearning": type(config.unlearning).__name__,
        "searcher": _searcher_name(config.searcher),
        "attack": type(config.attack).__name__,
        "generator": run.settings["generator"]["model"]["class_path"].rpartition(".")[2],
        "classifier": run.settings["classifier"]["model"]["class_path"].rpartition(".")[2],
        "normaliser": type(config.traces.normaliser).__name__,
        "sign": config.traces.sign,
        "signals": signals,
        "tau": config.latent.tau,
    }


def _searcher_name(searcher: Any) -> str:
    algorithm = getattr(searcher, "algorithm", None)
    kind = type(searcher).__name__
    return f"{kind} ({algorithm.__name__})" if isinstance(algorithm, type) else kind


def _refinement(run: AuditRun) -> int:
    steps, population = (getattr(run.config.attack, f"refinement_{part}", 0) for part in ("steps", "population"))
    return int(steps * population)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
