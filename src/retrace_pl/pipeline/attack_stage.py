"""The stage that searches: the audited pair, the controls and the rival searchers, all at one query budget."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrace_pl.attacks import AttackContext, Reconstruction, prior_only
from retrace_pl.audit import parse_controls
from retrace_pl.errors import InputError
from retrace_pl.files import write_json, write_tensors
from retrace_pl.pipeline.observers import SEARCH_LOG, search_observer
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.train_stages import ORIGINAL, UNLEARNED, load_classifier, load_generator, retrained_name
from retrace_pl.pipeline.training import torch_device
from retrace_pl.searchers import PolicyState, Searcher, save_policy
from retrace_pl.traces import Access, Calibration, ModelPair, TraceScorer, calibrate

AUDITED, PRIOR = "attack", "prior"
CANDIDATES, CURVES, SEARCHES, CALIBRATION = "candidates.safetensors", "curves.json", "searches.json", "calibration.json"
POLICY_WEIGHTS, POLICY_SETTINGS = "policy.safetensors", "policy.json"

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
    for repeat in range(config.audit.repeats):
        yield Search(AUDITED, repeat, UNLEARNED, config.searcher)
    for control in parse_controls(config.audit.controls):
        if control.searched:
            seconds = SECOND_MODELS[control.unlearned or ""](config.audit.repeats)
            for repeat, second in enumerate(seconds):
                yield Search(control.id, repeat, second, config.searcher)
    for name, rival in zip(rival_names(config.rivals), config.rivals, strict=True):
        yield Search(f"rival.{name}", 0, UNLEARNED, rival)


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
    """Calibrates the trace, runs every planned search and stores what was found."""
    models = _Models(run)
    found = _Findings()
    shutil.rmtree(run.folder.path(SEARCH_LOG), ignore_errors=True)  # else an earlier attempt's curves mix with these
    _calibrate(run, models.scorer(UNLEARNED))
    for search in planned_searches(run):
        scorer = models.scorer(search.second)
        context = AttackContext(
            pair=scorer.pair,
            scorer=scorer,
            generator=models.generator,
            latent=run.config.latent,
            public=models.public,
            budget=run.config.queries,
            seed=seed_for(run.config.seed, "search", search.repeat),
            observer=search_observer(run, models.generator, search.label),
            searcher=search.searcher,
            probe=deleted_class_probe(run, models.original),
        )
        found.add(search, run.config.attack.reconstruct(context), context, scorer)
    if PRIOR in {control.id for control in parse_controls(run.config.audit.controls)}:
        for repeat in range(run.config.audit.repeats):
            seed = seed_for(run.config.seed, PRIOR, repeat)
            size = len(found.tensors[f"{AUDITED}-{repeat}/inputs"])
            drawn = prior_only(models.generator, size, run.config.queries, seed, run.config.latent)
            found.add_prior(repeat, seed, drawn)
    return [*found.write(run), CALIBRATION]


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


class _Findings:
    """Collects what the searches found and writes it at once, so that a stage leaves all of its files or none."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.curves: dict[str, list[list[float]]] = {}
        self.searches: dict[str, dict[str, Any]] = {}
        self.policy: PolicyState | None = None

    def add(self, search: Search, found: Reconstruction, context: AttackContext, scorer: TraceScorer) -> None:
        """Keeps one search: its selection, for the audited pair every query, for first repeats the curve."""
        self.tensors.update(_tensors(search.label, found))
        if search.name == AUDITED:
            self.tensors[f"{search.label}/pool_latents"] = found.pool.latents
            self.tensors[f"{search.label}/pool_scores"] = found.pool.scores
        if search.repeat == 0:
            shown = search.name.removeprefix("rival.")
            self.curves[shown] = [[float(value) for value in point] for point in found.curve]
        if search.name == AUDITED and search.repeat == 0:
            self.policy = found.policy
        self.searches[search.label] = _record(search, found, context, scorer)

    def add_prior(self, repeat: int, seed: int, drawn: Reconstruction) -> None:
        """Keeps one draw of the prior-only control."""
        label = f"{PRIOR}-{repeat}"
        self.tensors.update(_tensors(label, drawn))
        self.searches[label] = {"name": PRIOR, "repeat": repeat, "seed": seed, "queries": 0}

    def write(self, run: AuditRun) -> list[str]:
        """Writes the files of the stage and returns their names."""
        written = [CANDIDATES, CURVES, SEARCHES]
        for name in (POLICY_WEIGHTS, POLICY_SETTINGS):  # another searcher may have left one here
            run.folder.path(name).unlink(missing_ok=True)
        write_tensors(run.folder.path(CANDIDATES), self.tensors)
        write_json(run.folder.path(CURVES), self.curves)
        write_json(run.folder.path(SEARCHES), self.searches)
        if self.policy is not None:
            save_policy(self.policy, run.folder.path(POLICY_WEIGHTS))
            written += [POLICY_WEIGHTS, POLICY_SETTINGS]
        return written


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


def _tensors(label: str, found: Reconstruction) -> dict[str, Tensor]:
    return {
        f"{label}/instance": found.instance,
        f"{label}/instance_latent": found.instance_latent,
        f"{label}/instance_score": torch.tensor([found.instance_score]),
        f"{label}/inputs": found.inputs,
        f"{label}/scores": found.scores,
        f"{label}/latents": found.latents,
    }


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
    }
