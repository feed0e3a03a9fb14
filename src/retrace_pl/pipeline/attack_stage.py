"""The stage that searches: the audited pair, the controls and the rival searchers, all at one query budget."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.attacks import AttackContext, Reconstruction, prior_only
from retrace_pl.audit import parse_controls
from retrace_pl.errors import InputError
from retrace_pl.files import write_json, write_tensors
from retrace_pl.pipeline.artefacts import prior_artefact, search_artefact, search_inputs
from retrace_pl.pipeline.cache import complete, place_file
from retrace_pl.pipeline.observers import SEARCH_LOG, search_observer
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_results import POLICY_SETTINGS, POLICY_WEIGHTS, SearchResult, SearchResults
from retrace_pl.pipeline.train_stages import (
    GENERATOR,
    ORIGINAL,
    UNLEARNED,
    load_classifier,
    load_generator,
    retrained_name,
    weights_file,
)
from retrace_pl.pipeline.training import torch_device
from retrace_pl.searchers import Searcher
from retrace_pl.traces import Access, Calibration, ModelPair, TraceScorer, calibrate

AUDITED, PRIOR = "attack", "prior"
CANDIDATES, CURVES, SEARCHES, CALIBRATION = "candidates.safetensors", "curves.json", "searches.json", "calibration.json"
SCRATCH = "searches"
"""Folder of the searches that are done, for as long as the stage is not."""

SECOND_MODELS: dict[str, Callable[[int], list[str]]] = {
    "original": lambda repeats: [ORIGINAL],
    "retrained": lambda repeats: [retrained_name(repeat) for repeat in range(repeats)],
}
"""What a control calls its second model -> the models that take its place, one for each search."""


@dataclass(frozen=True)
class Search:
    """One search of the plan.

    Args:
        name: `attack`, the id of a control, or `rival.NAME`.
        repeat: number of the repeat; the audited pair and the matched retrain have several.
        second: name of the model that takes f-'s place.
        searcher: who searches.
        settings: the same as plain values.
    """

    name: str
    repeat: int
    second: str
    searcher: Searcher
    settings: Any

    @property
    def label(self) -> str:
        """Unique name of the search in files, logs and progress bars."""
        return f"{self.name}-{self.repeat}"


def planned_searches(run: AuditRun) -> Iterator[Search]:
    """Every search of the audit, in order: repeats of the audited pair, of the matched retrain, then single ones."""
    config, settings = run.config, run.settings
    for repeat in range(config.audit.repeats):
        yield Search(AUDITED, repeat, UNLEARNED, config.searcher, settings["searcher"])
    for control in parse_controls(config.audit.controls):
        if control.searched:
            seconds = SECOND_MODELS[control.unlearned or ""](config.audit.repeats)
            for repeat, second in enumerate(seconds):
                yield Search(control.id, repeat, second, config.searcher, settings["searcher"])
    for name, rival, values in zip(rival_names(config.rivals), config.rivals, settings["rivals"], strict=True):
        yield Search(f"rival.{name}", 0, UNLEARNED, rival, values)


def rival_names(rivals: Sequence[Searcher]) -> list[str]:
    """A name of its own for every rival: its algorithm's or its own, numbered where another rival has it too."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for rival in rivals:
        algorithm = getattr(rival, "algorithm", None)
        name = algorithm.__name__.lower() if isinstance(algorithm, type) else rival.name
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return names


def attack(run: AuditRun) -> list[str]:
    """Calibrates the trace, runs every planned search and stores what was found.

    A search that is done is kept at once, so that an interrupted stage goes on with the first one that is missing.
    """
    models = _Models(run)
    results = SearchResults(run, run.folder.path(SCRATCH))
    shutil.rmtree(run.folder.path(SEARCH_LOG), ignore_errors=True)  # else an earlier attempt's curves mix with these
    _calibrate(run, models.scorer(UNLEARNED))
    searches = list(planned_searches(run))
    _search(run, models, results, searches)
    drawn = _draw_prior(run, models, results)
    written = _write(run, results, searches, drawn)
    results.discard()
    return [*written, CALIBRATION]


def _search(run: AuditRun, models: _Models, results: SearchResults, searches: Sequence[Search]) -> None:
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


def _run_search(run: AuditRun, models: _Models, search: Search, seed: int) -> SearchResult:
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


def _draw_prior(run: AuditRun, models: _Models, results: SearchResults) -> list[str]:
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


def _draw(run: AuditRun, models: _Models, repeat: int, size: int, seed: int) -> SearchResult:
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


class _Models:
    """Generator, f+ and one fitted scorer for each second model, on the device of the search."""

    def __init__(self, run: AuditRun) -> None:
        self.run = run
        self.device = torch_device(run.config.trainer)
        self.generator = load_generator(run).to(self.device).requires_grad_(False)
        self.original = load_classifier(run, ORIGINAL).to(self.device)
        self.public = run.data.split("public").inputs
        self._scorers: dict[str, TraceScorer] = {}

    def scorer(self, second: str) -> TraceScorer:
        """The trace score of (f+, `second`), normalised on the public split."""
        if second not in self._scorers:
            other = self.original if second == ORIGINAL else load_classifier(self.run, second).to(self.device)
            self._scorers[second] = make_scorer(self.run, self.original, other)
            self._scorers[second].fit(self.public)
        return self._scorers[second]


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
    if len(positives) == 0:
        raise InputError("test_size: the test split has no record of a deleted class to calibrate on; raise it")
    calibration = calibrate(scorer, positives, negatives)
    write_json(run.folder.path(CALIBRATION), calibration.to_dict())
    values = ", ".join(f"{name} {value:.3f}" for name, value in calibration.auroc.items())
    run.console.print(f"trace calibration, AUROC: {values}")
    return calibration


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
