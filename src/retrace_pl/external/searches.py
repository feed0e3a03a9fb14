"""The stage that attacks: the two models, the controls and the rivals, all at one query budget."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from retrace_pl.attacks import AttackContext, ClassInference, NotApplicable, prior_only
from retrace_pl.errors import AccessError
from retrace_pl.external.generator import load_generator
from retrace_pl.external.run import NULL, ORIGINAL, REFERENCE, UNLEARNED, PairRun
from retrace_pl.files import write_json
from retrace_pl.pipeline.attack_stage import SCRATCH, searched, write_searches
from retrace_pl.pipeline.cache import Artefact, complete
from retrace_pl.pipeline.observers import SEARCH_LOG, Observers
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.scoring import build_scorer, describe_scorer, ways_to_run
from retrace_pl.pipeline.search_plan import AUDITED, PRIOR, Search, rival_names
from retrace_pl.pipeline.search_results import SearchResult, SearchResults, reconstruction_tensors
from retrace_pl.pipeline.training import torch_device
from retrace_pl.report import RichSearchProgress, TensorBoardSearchObserver
from retrace_pl.searchers import Searcher
from retrace_pl.traces import ModelPair, TraceScorer, delta_prediction, pair_probabilities

__all__ = ["CONTROL_MODELS", "INFERENCE", "PairModels", "attack", "planned"]

INFERENCE = "inference.json"

CONTROL_MODELS = {"matched_retrain": REFERENCE, "null": NULL}
"""Control -> role of the model that takes the unlearned one's place, where it was brought along."""


def planned(run: PairRun) -> list[Search]:
    """Every search, in order: repeats of the two models, of the controls' pairs, identity, then the rivals."""
    search, plain = run.settings.search, run.settings.plain
    seconds = {AUDITED: UNLEARNED, **{name: role for name, role in CONTROL_MODELS.items() if role in run.opened}}
    plan = [
        Search(name, repeat, second, search.searcher, plain["searcher"])
        for name, second in seconds.items()
        for repeat in range(search.repeats)
    ]
    plan.append(Search("identity", 0, ORIGINAL, search.searcher, plain["searcher"]))
    for name, rival, values in zip(rival_names(search.rivals), search.rivals, plain["rivals"], strict=True):
        plan.append(Search(f"rival.{name}", 0, UNLEARNED, rival, values))
    return plan


class PairModels:
    """Generator, public records and one fitted score for each second model, on the device of the search."""

    def __init__(self, run: PairRun) -> None:
        self.run = run
        self.device = torch_device(run.settings.search.trainer)
        self.generator = load_generator(run).to(self.device)
        self.public = run.public.inputs
        self._scorers: dict[str, TraceScorer] = {}

    def scorer(self, second: str) -> TraceScorer:
        """The trace score of the original model and another, fitted on the public records."""
        if second not in self._scorers:
            original, other = (self.run.models[role].to(self.device) for role in (ORIGINAL, second))
            traces = self.run.settings.search.traces
            pair = ModelPair(original, other, self.run.access, **ways_to_run(traces))
            scorer = build_scorer(traces, pair, traces.weights, self.run.settings.data.deletion)
            scorer.fit(self.public)
            self._scorers[second] = scorer
        return self._scorers[second]

    def context(self, second: str, label: str, seed: int, searcher: Searcher | None, budget: int) -> AttackContext:
        """What an attack on the original model and another may see."""
        scorer = self.scorer(second)
        return AttackContext(
            pair=scorer.pair,
            scorer=scorer,
            generator=self.generator,
            latent=self.run.settings.search.latent,
            public=self.public,
            budget=budget,
            seed=seed,
            observer=self._observer(label),
            searcher=searcher,
        )

    def _observer(self, label: str) -> Observers:
        @torch.no_grad()
        def render(latents: Tensor) -> Tensor:
            return torch.as_tensor(self.generator(latents.to(self.device)))

        return Observers(
            RichSearchProgress(label, quiet=self.run.quiet, console=self.run.console),
            TensorBoardSearchObserver(
                self.run.folder.path(SEARCH_LOG), label, render, describe=self.run.material.domain.texts
            ),
        )


def attack(run: PairRun) -> list[str]:
    """Runs every planned search and the class inference, and stores what was found.

    A search that is done is kept at once, so that an interrupted stage goes on with the first one that is missing.
    """
    models = PairModels(run)
    results = SearchResults(cast(AuditRun, run), run.folder.path(SCRATCH))  # it uses folder, cache and console alone
    shutil.rmtree(run.folder.path(SEARCH_LOG), ignore_errors=True)  # else an earlier attempt's curves mix with these
    names = run.public.classes or ()
    run.console.print(f"trace: {describe_scorer(models.scorer(UNLEARNED), names)}", markup=False)
    inferred = _infer(run, models)
    searches = planned(run)
    jobs = []
    for search in searches:
        seed = seed_for(run.settings.search.seed, "search", search.repeat)
        inputs = {"attack": run.key("attack"), "label": search.label, "seed": seed}
        work = partial(_search, run, models, search, seed)
        jobs.append(results.job(Artefact(search.label, inputs), work, shared=False))
    complete(jobs)
    drawn = _draw_prior(run, models)
    written = _write(run, results, [search.label for search in searches], drawn)
    write_json(run.folder.path(INFERENCE), inferred)
    results.discard()
    return [*written, INFERENCE]


def _search(run: PairRun, models: PairModels, search: Search, seed: int) -> SearchResult:
    settings = run.settings.search
    context = models.context(search.second, search.label, seed, search.searcher, settings.queries)
    scorer = models.scorer(search.second)
    result = searched(search, settings.attack, context, scorer, run.console)
    if not result.record.get("applicable", True):
        return result
    return replace(result, record={**result.record, **disagreement(scorer.pair, result.tensors["inputs"])})


def disagreement(pair: ModelPair, inputs: Tensor) -> dict[str, Any]:
    """How far the probabilities of a pair are apart on inputs, and which classes its first model sees in them.

    Returns:
        ``gap``, the mean of ||p+ - p-||_2 in [0, sqrt(2)], and ``labels``, the number of inputs assigned to each class.
    """
    original, unlearned = pair_probabilities(pair, inputs)
    labels = torch.bincount(original.argmax(dim=1), minlength=original.shape[1])
    return {"gap": float(delta_prediction(original, unlearned).mean()), "labels": labels.tolist()}


def _infer(run: PairRun, models: PairModels) -> dict[str, Any]:
    """Class inference on the two models, and on each control's pair; every question was asked before."""
    names = {"": UNLEARNED, **{name: role for name, role in CONTROL_MODELS.items() if role in run.opened}}
    found = {name: _inferred(run, models, second) for name, second in names.items()}
    return {"class_inference": {**found.pop(""), "controls": found}}


def _inferred(run: PairRun, models: PairModels, second: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"attack": ClassInference.__name__, "applicable": True}
    context = models.context(second, ClassInference.name, run.settings.search.seed, None, len(run.public))
    try:
        finding = ClassInference().infer(context)
    except (NotApplicable, AccessError) as error:
        return facts | {"applicable": False, "reason": str(error)}
    public = disagreement(models.scorer(second).pair, models.public)
    return facts | {"queries": finding.queries, "answer": finding.answer, "public_gap": public["gap"]}


def _draw_prior(run: PairRun, models: PairModels) -> dict[str, SearchResult]:
    """As many samples of the generator as a search selects, for each repeat."""
    settings = run.settings.search
    drawn = {}
    for repeat in range(settings.repeats):
        seed = seed_for(settings.seed, PRIOR, repeat)
        found = prior_only(models.generator, run.top_k, settings.queries, seed, settings.latent)
        facts = disagreement(models.scorer(UNLEARNED).pair, found.inputs)
        record = {"name": PRIOR, "repeat": repeat, "seed": seed, "queries": 0, **facts}
        drawn[f"{PRIOR}-{repeat}"] = SearchResult(reconstruction_tensors(found), record)
    return drawn


def _write(run: PairRun, results: SearchResults, labels: list[str], drawn: Mapping[str, SearchResult]) -> list[str]:
    """Writes the files of the stage in the order of the plan, and returns their names."""
    tensors: dict[str, Tensor] = {}
    records: dict[str, Any] = {}
    curves: dict[str, list[list[float]]] = {}
    for label in labels:
        tensors |= {f"{label}/{name}": value for name, value in results.tensors(label).items()}
        records[label], curve = results.facts(label)
        if records[label]["repeat"] == 0:
            curves[str(records[label]["name"]).removeprefix("rival.")] = curve
    for label, result in drawn.items():
        tensors |= {f"{label}/{name}": value for name, value in result.tensors.items()}
        records[label] = dict(result.record)
    return write_searches(run.folder, results, tensors, records, curves)
