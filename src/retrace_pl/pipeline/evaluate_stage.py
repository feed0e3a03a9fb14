"""The stage that compares what was found with what was deleted, and writes metrics.json with the verdict."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from retrace_pl.audit import decide, not_finite
from retrace_pl.errors import RunError
from retrace_pl.files import read_json, write_json, write_tensors
from retrace_pl.pipeline.artefacts import TRACE_WEIGHTS
from retrace_pl.pipeline.attack_stage import CANDIDATES, SEARCHES
from retrace_pl.pipeline.config import TraceSettings
from retrace_pl.pipeline.control_models import inapplicable_controls
from retrace_pl.pipeline.evidence import gather_evidence
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.judge_controls import control_leakage, judged_controls, stored_outcomes
from retrace_pl.pipeline.judge_others import judged_baselines, judged_inferences
from retrace_pl.pipeline.needs import needs_shadow
from retrace_pl.pipeline.other_attacks import BASELINE
from retrace_pl.pipeline.processes import alone
from retrace_pl.pipeline.questions import ask_everything, quality_answers
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import CALIBRATION
from retrace_pl.pipeline.search_plan import AUDITED
from retrace_pl.pipeline.shadow import describe_shadow
from retrace_pl.pipeline.train_stages import ORIGINAL, UNLEARNED
from retrace_pl.report.progress import counted, steps
from retrace_pl.searchers import MixtureSearcher
from retrace_pl.tasks import heldout_floors, reconstruction_floors
from retrace_pl.traces import SignedRange

METRICS, EVALUATION, TEXTS = "metrics.json", "evaluation.safetensors", "texts.json"
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
    """Judges every reconstruction with the independent evaluator and decides the verdict.

    Several processes share what networks are asked; the first one then computes every metric from the gathered answers.
    """
    judge, count = Judge(run), counted(1)
    if not ask_everything(run, judge):
        return []
    count()
    with alone():
        return _evaluate(run, judge)


def _evaluate(run: AuditRun, judge: Judge) -> list[str]:
    searches = read_json(run.folder.path(SEARCHES))
    applied = [search for search in searches.values() if search.get("applicable", True)]
    names = [name for name in _names(applied) if not name.startswith(f"{BASELINE}.")]
    judged = {
        name: judge.summary([label for label, search in searches.items() if search["name"] == name])
        for name in steps(names)
    }
    if AUDITED not in judged:
        raise RunError(f"{run.folder.path(CANDIDATES)} holds no attack; run `retrace attack` again")
    count = counted(1)
    evidence = gather_evidence(run, judge)
    count()
    audited = judged[AUDITED]
    audited["score_spread"] = max(searches[label]["score_spread"] for label in judge.labels(AUDITED))
    quality = quality_answers(run, judge)
    metrics: dict[str, Any] = {
        "schema": 1,
        "name": run.config.name,
        "setting": _setting(run, searches[f"{AUDITED}-0"]["signals"]),
        **judge.domain.facts(),
        "splits": run.data.class_counts(),
        "classes": list(run.data.classes),
        "dropped_copies": run.data.dropped_copies,
        **({} if run.data.encoding is None else {"encoding": run.data.encoding}),
        "models": {name: {"test_acc": values["test_acc"]} for name, values in quality.items()},
        "unlearning": quality[UNLEARNED],
        "original": quality[ORIGINAL],
        "retrained": quality.get("retrained"),
        "calibration": read_json(run.folder.path(CALIBRATION)) | evidence.calibration,
        "attack": audited,
        "controls": judged_controls(run, judge, judged, searches),
        "inapplicable_controls": inapplicable_controls(run),
        "significance": evidence.significance,
        "shadow": describe_shadow(run) if needs_shadow(run.settings) else None,
        "trace_weights": read_json(run.folder.path(TRACE_WEIGHTS)) if run.config.traces.fit_weights else None,
        "rivals": _rivals(searches, judged),
        "baselines": judged_baselines(run, judge, searches),
        "inferences": judged_inferences(run, judge),
        "floors": _floors(run, judge),
        "outcome": judge.outcome,
        "leakage": judge.leakage() | control_leakage(run, judge),
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
        "versions": package_versions(),
        "seconds": run.folder.seconds(),
        "config_hash": run.key("evaluate"),
    }
    metrics["thresholds"] = asdict(run.config.audit.thresholds)
    metrics["not_finite"] = not_finite(metrics)
    verdict = decide(metrics)
    words = {"verdict": str(verdict.status), "verdict_reason": verdict.reason}
    metrics = {"schema": 1, **words, "verdict_kinds": [str(kind) for kind in verdict.kinds], **metrics}
    metrics["checks"] = [
        {"name": check.name, "value": check.value, "threshold": check.threshold, "passed": check.passed}
        for check in verdict.checks
    ]
    pictures = judge.pictures(_names(applied))
    write_tensors(run.folder.path(EVALUATION), {**pictures, **evidence.tensors, **stored_outcomes(judge)})
    texts = judge.texts(pictures)
    if texts:
        write_json(run.folder.path(TEXTS), texts)
    write_json(run.folder.path(METRICS), metrics)
    return [METRICS, EVALUATION, *([TEXTS] if texts else [])]


def _floors(run: AuditRun, judge: Judge) -> dict[str, float | None]:
    """What reconstructions without any model would score, and what unseen real records do."""
    seed = seed_for(run.config.seed, "metrics")
    found = reconstruction_floors(judge.deleted, judge.evaluator)
    return found | heldout_floors(judge.deleted, judge.evaluator, judge.top_k, seed=seed)


def _names(searches: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(search["name"] for search in searches))


def _rivals(searches: dict[str, dict[str, Any]], judged: dict[str, Any]) -> dict[str, Any]:
    """Metrics of every rival, or why it does not apply."""
    return {
        search["name"].removeprefix("rival."): judged.get(search["name"], {**search, "applicable": False})
        for search in searches.values()
        if search["name"].startswith("rival.")
    }


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
        "normaliser": _normaliser_name(config.traces),
        "sign": config.traces.sign,
        "signal": config.traces.signal,
        "signals": signals,
        "tau": config.latent.tau,
    }


def _normaliser_name(traces: TraceSettings) -> str:
    """The directional score has a scale of its own, whatever the settings say."""
    return SignedRange.__name__ if traces.signal == "directional" else type(traces.normaliser).__name__


def _searcher_name(searcher: Any) -> str:
    kind = type(searcher).__name__
    if isinstance(searcher, MixtureSearcher):
        return f"{kind} ({', '.join(_searcher_name(member) for member in searcher.searchers)})"
    algorithm = getattr(searcher, "algorithm", None)
    return f"{kind} ({algorithm.__name__})" if isinstance(algorithm, type) else kind


def _refinement(run: AuditRun) -> int:
    steps, population = (getattr(run.config.attack, f"refinement_{part}", 0) for part in ("steps", "population"))
    return int(steps * population)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
