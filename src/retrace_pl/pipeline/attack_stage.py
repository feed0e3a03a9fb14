"""The stage that attacks: the audited pair, the controls, rivals and other attacks, all at one query budget."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console
from torch import Tensor

from retrace_pl.attacks import Attack, AttackContext, NotApplicable, Reconstruction, prior_only
from retrace_pl.audit import parse_controls
from retrace_pl.envs import CandidatePool
from retrace_pl.errors import AccessError
from retrace_pl.files import read_json, read_tensors, write_json, write_tensors
from retrace_pl.pipeline.artefacts import prior_artefact, search_artefact, search_inputs
from retrace_pl.pipeline.cache import Job, complete, place_file
from retrace_pl.pipeline.observers import SEARCH_LOG
from retrace_pl.pipeline.other_attacks import (
    BASELINE,
    INFERENCE,
    MATCHED_RETRAIN,
    inapplicable,
    other_attacks,
    other_jobs,
)
from retrace_pl.pipeline.run_folder import RunFolder, seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import CALIBRATION, SearchModels, calibrate_traces
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR, Search, planned_searches
from retrace_pl.pipeline.search_results import (
    POLICY_SETTINGS,
    POLICY_WEIGHTS,
    SearchResult,
    SearchResults,
    reconstruction_tensors,
)
from retrace_pl.pipeline.side_by_side import search_side_by_side
from retrace_pl.pipeline.trace_weights import fit_trace_weights
from retrace_pl.pipeline.train_stages import GENERATOR, UNLEARNED, weights_file
from retrace_pl.traces import TraceScorer

CANDIDATES, CURVES, SEARCHES = "candidates.safetensors", "curves.json", "searches.json"
INFERENCES, INFERENCE_TENSORS = "inferences.json", "inferences.safetensors"
SCRATCH = "searches"
"""Folder of the searches that are done, for as long as the stage is not."""


def attack(run: AuditRun) -> list[str]:
    """Calibrates the trace, runs every planned search and stores what was found.

    A search that is done is kept at once, so that an interrupted stage goes on with the first one that is missing.
    """
    models = SearchModels(run)
    shutil.rmtree(run.folder.path(SEARCH_LOG), ignore_errors=True)  # else an earlier attempt's curves mix with these
    fitted = fit_trace_weights(run)
    calibrate_traces(run, models.scorer(UNLEARNED))
    searches, others = list(planned_searches(run)), other_attacks(run)
    jobs, results = search_jobs(run, models)
    missing = [job for job in jobs if not job.taken()] if run.jobs > 1 else jobs
    if run.jobs > 1 and len(missing) > 1:
        search_side_by_side(run, missing, run.folder.path(SCRATCH))
        missing = [replace(job, announce=lambda text: None) for job in missing]
    complete(missing)
    drawn = _draw_prior(run, models, results)
    baselines = [other.label for other in others if other.kind == BASELINE]
    written = _write(run, results, [*(search.label for search in searches), *baselines, *drawn])
    written += _write_findings(run, results, [other.label for other in others if other.kind == INFERENCE])
    results.discard()
    return [*written, *fitted, CALIBRATION]


def search_jobs(run: AuditRun, models: SearchModels | None = None) -> tuple[list[Job], SearchResults]:
    """Every search of the audit as a job, controls, rivals and other attacks included, and where its result is kept.

    Args:
        run: the audit.
        models: models that are open already.
    """
    models = SearchModels(run) if models is None else models
    results = SearchResults(run, run.folder.path(SCRATCH))
    searches = _search_jobs(run, models, results, list(planned_searches(run)))
    return [*searches, *other_jobs(run, models, results, other_attacks(run))], results


def _search_jobs(run: AuditRun, models: SearchModels, results: SearchResults, searches: Sequence[Search]) -> list[Job]:
    """Every search as a job, which skips it where an earlier attempt or another audit has run it."""
    firsts, seconds = ({getattr(search, place) for search in searches} for place in ("first", "second"))
    weights = {name: run.folder.path(weights_file(name)) for name in {GENERATOR, *firsts, *seconds}}
    shadow = {"shadow": run.key("unlearn")} if run.config.attack.needs_shadow else {}  # the stage that trains it
    common = {first: search_inputs(run, weights[first], weights[GENERATOR]) | shadow for first in firsts}
    jobs = []
    for search in searches:
        seed = seed_for(run.config.seed, "search", search.repeat)
        second = weights[search.second]
        artefact = search_artefact(common[search.first], search.label, second, search.settings, seed)
        job = results.job(artefact, partial(_run_search, run, models, search, seed), shared=search.second != UNLEARNED)
        jobs.append(job)
    return jobs


def _run_search(run: AuditRun, models: SearchModels, search: Search, seed: int) -> SearchResult:
    scorer = models.scorer(search.second, search.first)
    shadow = run.config.attack.needs_shadow
    context = models.context(search.second, search.label, seed, search.searcher, shadow=shadow, first=search.first)
    return searched(search, run.config.attack, context, scorer, run.console)


def searched(
    search: Search, attack: Attack, context: AttackContext, scorer: TraceScorer, console: Console
) -> SearchResult:
    """Runs one search of a plan; a rival that does not apply leaves its reason, as another attack does.

    Args:
        search: the search.
        attack: how candidates become reconstructions.
        context: what the attack may see.
        scorer: the trace score of the search's pair.
        console: where it is told that a rival does not apply.

    Raises:
        NotApplicable: the audited attack or a control does not apply.
        AccessError: the same, for lack of access.
    """
    try:
        found = attack.reconstruct(context)
    except (NotApplicable, AccessError) as error:
        if not search.name.startswith("rival."):
            raise
        return inapplicable(console, {"name": search.name, "repeat": search.repeat, "seed": context.seed}, error)
    tensors = reconstruction_tensors(found)
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
    return SearchResult(reconstruction_tensors(drawn), {"name": PRIOR, "repeat": repeat, "seed": seed, "queries": 0})


def _write(run: AuditRun, results: SearchResults, labels: Sequence[str]) -> list[str]:
    """Writes the reconstructions at the end of the stage, in the order of the plan, and returns the files' names."""
    tensors: dict[str, Tensor] = {}
    records: dict[str, dict[str, Any]] = {}
    curves: dict[str, list[list[float]]] = {}
    for label in labels:
        tensors |= {f"{label}/{name}": value for name, value in results.tensors(label).items()}
        records[label], curve = results.facts(label)
        name = _curve_name(records[label])
        if name is not None:
            curves[name] = curve
    return write_searches(run.folder, results, tensors, records, curves)


def write_searches(
    folder: RunFolder,
    results: SearchResults,
    tensors: Mapping[str, Tensor],
    records: Mapping[str, Any],
    curves: Mapping[str, Any],
) -> list[str]:
    """Writes what all searches of a run found, with the policy of the first, and returns the files' names.

    Args:
        folder: the run folder.
        results: the settled searches.
        tensors: candidates and scores as `LABEL/NAME`.
        records: plain facts about each search by its label.
        curves: rows (queries, best score, mean of the best) by the name that figures call them.
    """
    for name in (POLICY_WEIGHTS, POLICY_SETTINGS):  # another searcher may have left one here
        folder.path(name).unlink(missing_ok=True)
    write_tensors(folder.path(CANDIDATES), tensors)
    write_json(folder.path(CURVES), curves)
    write_json(folder.path(SEARCHES), records)
    policy = results.policy(f"{AUDITED}-0")
    for name, path in policy.items():
        place_file(path, folder.path(name))
    return [CANDIDATES, CURVES, SEARCHES, *policy]


def read_reconstructions(folder: RunFolder) -> list[Reconstruction]:
    """What the audited attack of a finished stage found, one reconstruction for each repeat.

    Args:
        folder: the run folder.

    Returns:
        Reconstructions as the attack returned them, without what was not kept: only the first has a curve.

    Raises:
        RunError: a file is missing or damaged.
    """
    records, curves = (read_json(folder.path(name)) for name in (SEARCHES, CURVES))
    tensors = read_tensors(folder.path(CANDIDATES))
    labels = [label for label, record in records.items() if record["name"] == AUDITED]
    found = []
    for label in labels:
        own = {name.removeprefix(f"{label}/"): value for name, value in tensors.items() if name.startswith(f"{label}/")}
        pool = {name: own.pop(f"pool_{name}") for name in ("latents", "scores") if f"pool_{name}" in own}
        first = records[label]["repeat"] == 0
        found.append(
            Reconstruction(
                instance=own["instance"],
                instance_score=float(own["instance_score"]),
                inputs=own["inputs"],
                scores=own["scores"],
                queries=int(records[label]["queries"]),
                curve=[(int(asked), best, top) for asked, best, top in curves.get(AUDITED, [])] if first else [],
                instance_latent=own.get("instance_latent"),
                latents=own.get("latents"),
                pool=CandidatePool.from_state(pool) if pool else None,
            )
        )
    return found


def _curve_name(record: Mapping[str, Any]) -> str | None:
    """What a search's curve of score against queries is called; None where it has none to show beside the others."""
    name: str = record["name"]
    if record["repeat"] != 0 or name == PRIOR:
        return None
    if not name.startswith(f"{BASELINE}."):
        return name.removeprefix("rival.")
    comparable = record.get("climbs_trace", False) and not name.endswith(f".{MATCHED_RETRAIN}")
    return name.replace(f"{BASELINE}.", "baselines.", 1) if comparable else None


def _write_findings(run: AuditRun, results: SearchResults, labels: Sequence[str]) -> list[str]:
    """Writes what the inferences found, and returns the files' names; without inferences there are none."""
    for name in (INFERENCES, INFERENCE_TENSORS):
        run.folder.path(name).unlink(missing_ok=True)
    if not labels:
        return []
    tensors = {f"{label}/{name}": value for label in labels for name, value in results.tensors(label).items()}
    write_tensors(run.folder.path(INFERENCE_TENSORS), tensors)
    write_json(run.folder.path(INFERENCES), {label: results.facts(label)[0] for label in labels})
    return [INFERENCES, INFERENCE_TENSORS]


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
