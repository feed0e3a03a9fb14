"""The stage that searches: the audited pair, the controls and the rival searchers, all at one query budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.attacks import AttackContext, Reconstruction, prior_only
from retrace_pl.audit import get_control, parse_controls
from retrace_pl.pipeline.observers import search_observer
from retrace_pl.pipeline.run_folder import seed_for, write_json, write_tensors
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.train_stages import ORIGINAL, UNLEARNED, load_classifier, load_generator, retrained_name
from retrace_pl.pipeline.training import torch_device
from retrace_pl.searchers import Searcher
from retrace_pl.traces import Access, Calibration, ModelPair, TraceScorer, calibrate

AUDITED = "attack"
CANDIDATES, CURVES, SEARCHES, CALIBRATION = "candidates.safetensors", "curves.json", "searches.json", "calibration.json"
POLICY_WEIGHTS, POLICY_SETTINGS = "policy.safetensors", "policy.json"


@dataclass(frozen=True)
class Search:
    """One search of the plan.

    Args:
        name: `attack`, the id of a control, or `rival.NAME`.
        repeat: number of the repeat; the audited pair and the matched retrain have several.
        second: name of the model that takes f-'s place.
        searcher: who searches.
    """

    name: str
    repeat: int
    second: str
    searcher: Searcher

    @property
    def label(self) -> str:
        """Unique name of the search in files, logs and progress bars."""
        return f"{self.name}-{self.repeat}"


def planned_searches(run: AuditRun) -> Iterator[Search]:
    """Every search of the audit, in order: repeats of the audited pair, of the matched retrain, then single ones."""
    config = run.config
    controls = {control.id for control in parse_controls(config.evidence.controls)}
    for repeat in range(config.evidence.repeats):
        yield Search(AUDITED, repeat, UNLEARNED, config.searcher)
    if "matched_retrain" in controls:
        for repeat in range(config.evidence.repeats):
            yield Search("matched_retrain", repeat, retrained_name(repeat), config.searcher)
    if "identity" in controls:
        yield Search("identity", 0, ORIGINAL, config.searcher)
    for rival in config.rivals:
        yield Search(f"rival.{rival.name}", 0, UNLEARNED, rival)


def attack(run: AuditRun) -> list[str]:
    """Calibrates the trace, runs every planned search and stores what was found."""
    device = torch_device(run.config.trainer)
    generator = load_generator(run).to(device).requires_grad_(False)
    original = load_classifier(run, ORIGINAL).to(device)
    public = run.data.split("public").inputs
    tensors: dict[str, Tensor] = {}
    curves: dict[str, list[tuple[int, float, float]]] = {}
    searches: dict[str, dict[str, Any]] = {}
    policy_files: list[str] = []
    scorers: dict[str, TraceScorer] = {}

    def scorer_for(second: str) -> TraceScorer:
        if second not in scorers:
            other = original if second == ORIGINAL else load_classifier(run, second).to(device)
            scorers[second] = make_scorer(run, original, other)
            scorers[second].fit(public)
        return scorers[second]

    _calibrate(run, scorer_for(UNLEARNED))
    for search in planned_searches(run):
        scorer = scorer_for(search.second)
        context = AttackContext(
            pair=scorer.pair,
            scorer=scorer,
            generator=generator,
            latent=run.config.latent,
            public=public,
            budget=run.config.queries,
            seed=seed_for(run.config.seed, "search", search.repeat),
            observer=search_observer(run, generator, search.label),
            searcher=search.searcher,
            probe=deleted_class_probe(run, original),
        )
        found = run.config.attack.reconstruct(context)
        tensors.update(_tensors(search.label, found, keep_pool=search.name == AUDITED))
        curves[search.label] = found.curve
        searches[search.label] = _record(search, found, context, scorer)
        if search.name == AUDITED and search.repeat == 0 and found.policy is not None:
            policy_files = _store_policy(run, found.policy)
    if "prior" in {control.id for control in parse_controls(run.config.evidence.controls)}:
        for repeat in range(run.config.evidence.repeats):
            seed = seed_for(run.config.seed, "prior", repeat)
            size = len(tensors[f"{AUDITED}-{repeat}/inputs"])
            found = prior_only(generator, size, run.config.queries, seed, run.config.latent)
            tensors.update(_tensors(f"prior-{repeat}", found, keep_pool=False))
            searches[f"prior-{repeat}"] = {"name": "prior", "repeat": repeat, "seed": seed, "queries": 0}
    write_tensors(run.folder.path(CANDIDATES), tensors, {"latent_dim": generator.latent_dim})
    write_json(run.folder.path(CURVES), _shown_curves(curves))
    write_json(run.folder.path(SEARCHES), searches)
    return [CANDIDATES, CURVES, SEARCHES, CALIBRATION, *policy_files]


def deleted_class_probe(run: AuditRun, original: nn.Module) -> Callable[[Tensor], dict[str, float]] | None:
    """For the log alone: the share of candidates that f+ assigns to a deleted class; None for deleted records."""
    if run.data.deletion != "class":
        return None
    deleted = torch.tensor(run.data.deleted_classes, device=next(original.parameters()).device)

    @torch.no_grad()
    def probe(inputs: Tensor) -> dict[str, float]:
        predicted = original(inputs.to(deleted.device)).argmax(1)
        return {"deleted_class_by_original": float(torch.isin(predicted, deleted).float().mean())}

    return probe


def make_scorer(run: AuditRun, original: nn.Module, second: nn.Module) -> TraceScorer:
    """The trace score of one pair, not fitted yet."""
    traces = run.config.traces
    pair = ModelPair(original, second, Access(run.config.access))
    return TraceScorer(pair, traces.weights, traces.normaliser, traces.sign, traces.batch_size)


def _calibrate(run: AuditRun, scorer: TraceScorer) -> Calibration:
    """Measures, on images no model was trained on, whether the trace points to the deleted data.

    Positives are unseen images of the deleted classes (test split; the public split too where it holds the class),
    negatives the public images of the other classes. After a deletion of single records, positives are those records
    and negatives the test split. The attack never sees the outcome.
    """
    public, test, forget = (run.data.split(name) for name in ("public", "test", "forget"))
    if run.data.deletion == "class":
        deleted = torch.tensor(run.data.deleted_classes)
        shown = torch.isin(public.labels, deleted)
        positives = torch.cat([test.inputs[torch.isin(test.labels, deleted)], public.inputs[shown]])
        negatives = public.inputs[~shown]
    else:
        positives, negatives = forget.inputs, test.inputs
    calibration = calibrate(scorer, positives, negatives)
    write_json(run.folder.path(CALIBRATION), calibration.to_dict())
    values = ", ".join(f"{name} {value:.3f}" for name, value in calibration.auroc.items())
    run.console.print(f"trace calibration, AUROC: {values}")
    return calibration


def _tensors(label: str, found: Reconstruction, *, keep_pool: bool) -> dict[str, Tensor]:
    tensors = {
        f"{label}/instance": found.instance,
        f"{label}/instance_latent": found.instance_latent,
        f"{label}/inputs": found.inputs,
        f"{label}/scores": found.scores,
        f"{label}/latents": found.latents,
    }
    if keep_pool:
        tensors |= {f"{label}/pool_latents": found.pool.latents, f"{label}/pool_scores": found.pool.scores}
    return tensors


def _record(search: Search, found: Reconstruction, context: AttackContext, scorer: TraceScorer) -> dict[str, Any]:
    """Plain facts about one search; the largest raw trace tells whether an identity pair is identical."""
    deltas = scorer.deltas(found.inputs).named()
    pool = found.pool.scores
    return {
        "name": search.name,
        "repeat": search.repeat,
        "seed": context.seed,
        "queries": found.queries,
        "instance_score": found.instance_score,
        "score_spread": float(pool.max() - pool.min()),
        "max_trace": max(float(delta.abs().max()) for delta in deltas.values()),
        "signals": list(scorer.signals),
        "isolates": "" if search.name not in ("identity", "matched_retrain") else get_control(search.name).isolates,
    }


def _store_policy(run: AuditRun, policy: tuple[dict[str, Tensor], dict[str, Any]]) -> list[str]:
    weights, settings = policy
    write_tensors(run.folder.path(POLICY_WEIGHTS), weights)
    write_json(run.folder.path(POLICY_SETTINGS), json.loads(json.dumps(settings)))
    return [POLICY_WEIGHTS, POLICY_SETTINGS]


def _shown_curves(curves: dict[str, list[tuple[int, float, float]]]) -> dict[str, list[list[float]]]:
    """Curves of the first repeats, named as the report's legends are."""
    shown = {}
    for label, curve in curves.items():
        name, _, repeat = label.rpartition("-")
        if repeat == "0":
            shown[name.removeprefix("rival.")] = [[float(value) for value in row] for row in curve]
    return shown
