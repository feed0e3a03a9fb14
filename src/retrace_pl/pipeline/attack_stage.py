"""The stage that searches: the audited pair, the controls and the rival searchers, all at one query budget."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retrace_pl.attacks import AttackContext, Reconstruction, prior_only
from retrace_pl.audit import parse_controls
from retrace_pl.files import write_json, write_tensors
from retrace_pl.pipeline.artefacts import prior_artefact, search_artefact, search_inputs
from retrace_pl.pipeline.cache import complete, place_file
from retrace_pl.pipeline.observers import SEARCH_LOG, search_observer
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import CALIBRATION, SearchModels, calibrate_traces, deleted_class_probe
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR, Search, planned_searches
from retrace_pl.pipeline.search_results import POLICY_SETTINGS, POLICY_WEIGHTS, SearchResult, SearchResults
from retrace_pl.pipeline.train_stages import GENERATOR, ORIGINAL, UNLEARNED, weights_file
from retrace_pl.traces import TraceScorer

CANDIDATES, CURVES, SEARCHES = "candidates.safetensors", "curves.json", "searches.json"
SCRATCH = "searches"
"""Folder of the searches that are done, for as long as the stage is not."""


def attack(run: AuditRun) -> list[str]:
    """Calibrates the trace, runs every planned search and stores what was found.

    A search that is done is kept at once, so that an interrupted stage goes on with the first one that is missing.
    """
    models = SearchModels(run)
    results = SearchResults(run, run.folder.path(SCRATCH))
    shutil.rmtree(run.folder.path(SEARCH_LOG), ignore_errors=True)  # else an earlier attempt's curves mix with these
    calibrate_traces(run, models.scorer(UNLEARNED))
    searches = list(planned_searches(run))
    _search(run, models, results, searches)
    drawn = _draw_prior(run, models, results)
    written = _write(run, results, searches, drawn)
    results.discard()
    return [*written, CALIBRATION]


def _search(run: AuditRun, models: SearchModels, results: SearchResults, searches: Sequence[Search]) -> None:
    """Runs the searches that no earlier attempt and no other audit has run."""
    weights = {
        name: run.folder.path(weights_file(name))
        for name in (ORIGINAL, GENERATOR, *(search.second for search in searches))
    }
    common = search_inputs(run, weights[ORIGINAL], weights[GENERATOR])
    jobs = []
    for search in searches:
        seed = seed_for(run.config.seed, "search", search.repeat)
        artefact = search_artefact(common, search.label, weights[search.second], search.settings, seed)
        job = results.job(artefact, partial(_run_search, run, models, search, seed), shared=search.second != UNLEARNED)
        jobs.append(job)
    complete(jobs)


def _run_search(run: AuditRun, models: SearchModels, search: Search, seed: int) -> SearchResult:
    scorer = models.scorer(search.second)
    context = AttackContext(
        pair=scorer.pair,
        scorer=scorer,
        generator=models.generator,
        latent=run.config.latent,
        public=models.public,
        budget=run.config.queries,
        seed=seed,
        observer=search_observer(run, models.generator, search.label),
        searcher=search.searcher,
        probe=deleted_class_probe(run, models.original),
    )
    found = run.config.attack.reconstruct(context)
    tensors = _tensors(found)
    if search.name == AUDITED and found.pool is not None:
        tensors |= {"pool_latents": found.pool.latents, "pool_scores": found.pool.scores}
    curve = [[float(value) for value in point] for point in found.curve]
    policy = found.policy if search.name == AUDITED and search.repeat == 0 else None
    return SearchResult(tensors, _record(search, found, context, scorer), curve, policy)


def _draw_prior(run: AuditRun, models: SearchModels, results: SearchResults) -> list[str]:
    """Draws the prior-only control, as many candidates as the attack selected; returns the labels of the draws."""
    if PRIOR not in {control.id for control in parse_controls(run.config.audit.controls)}:
        return []
    generator = run.folder.path(weights_file(GENERATOR))
    jobs = {}
    for repeat in range(run.config.audit.repeats):
        label = f"{PRIOR}-{repeat}"
        seed = seed_for(run.config.seed, PRIOR, repeat)
        size = len(results.tensors(f"{AUDITED}-{repeat}")["inputs"])
        draw = partial(_draw, run, models, repeat, size, seed)
        jobs[label] = results.job(prior_artefact(run, label, generator, size, seed), draw, shared=True)
    complete(list(jobs.values()))
    return list(jobs)


def _draw(run: AuditRun, models: SearchModels, repeat: int, size: int, seed: int) -> SearchResult:
    drawn = prior_only(models.generator, size, run.config.queries, seed, run.config.latent)
    return SearchResult(_tensors(drawn), {"name": PRIOR, "repeat": repeat, "seed": seed, "queries": 0})


def _write(run: AuditRun, results: SearchResults, searches: Sequence[Search], drawn: Sequence[str]) -> list[str]:
    """Writes the files of the stage at its end, in the order of the plan, and returns their names."""
    tensors: dict[str, Tensor] = {}
    records: dict[str, dict[str, Any]] = {}
    curves: dict[str, list[list[float]]] = {}
    for label in [*(search.label for search in searches), *drawn]:
        tensors |= {f"{label}/{name}": value for name, value in results.tensors(label).items()}
        records[label], curve = results.facts(label)
        if records[label]["repeat"] == 0 and records[label]["name"] != PRIOR:
            curves[records[label]["name"].removeprefix("rival.")] = curve
    for name in (POLICY_WEIGHTS, POLICY_SETTINGS):  # another searcher may have left one here
        run.folder.path(name).unlink(missing_ok=True)
    write_tensors(run.folder.path(CANDIDATES), tensors)
    write_json(run.folder.path(CURVES), curves)
    write_json(run.folder.path(SEARCHES), records)
    policy = results.policy(f"{AUDITED}-0")
    for name, path in policy.items():
        place_file(path, run.folder.path(name))
    return [CANDIDATES, CURVES, SEARCHES, *policy]


def _tensors(found: Reconstruction) -> dict[str, Tensor]:
    tensors = {
        "instance": found.instance,
        "instance_latent": found.instance_latent,
        "instance_score": torch.tensor([found.instance_score]),
        "inputs": found.inputs,
        "scores": found.scores,
        "latents": found.latents,
    }
    return {name: value for name, value in tensors.items() if value is not None}


def _record(search: Search, found: Reconstruction, context: AttackContext, scorer: TraceScorer) -> dict[str, Any]:
    """Plain facts about one search; the largest raw trace tells whether an identity pair is identical."""
    deltas = scorer.deltas(found.inputs).named()
    pool = found.scores if found.pool is None else found.pool.scores
    return {
        "name": search.name,
        "repeat": search.repeat,
        "seed": context.seed,
        "queries": found.queries,
        "instance_score": found.instance_score,
        "score_spread": float(pool.max() - pool.min()),
        "max_trace": max(float(delta.abs().max()) for delta in deltas.values()),
        "signals": list(scorer.signals),
    }
