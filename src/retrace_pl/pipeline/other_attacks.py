"""Other attacks on the audited pair, and on the matched retrain, at the audit's query budget.

A baseline reconstructs, an inference answers a question. One that has nothing to work on in this pair, or needs a
higher access level, leaves its reason in place of a result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from retrace_pl.attacks import Attack, AttackContext, InferenceAttack, NotApplicable, Reconstruction
from retrace_pl.errors import AccessError, RunError
from retrace_pl.pipeline.artefacts import search_artefact, search_inputs
from retrace_pl.pipeline.cache import Job
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import SearchModels
from retrace_pl.pipeline.search_plan import searcher_name
from retrace_pl.pipeline.search_results import SearchResult, SearchResults, reconstruction_tensors
from retrace_pl.pipeline.train_stages import GENERATOR, ORIGINAL, UNLEARNED, retrained_name, weights_file
from retrace_pl.pipeline.witness import WitnessedPair
from retrace_pl.searchers import Searcher
from retrace_pl.traces import TraceScorer

BASELINE, INFERENCE = "baseline", "inference"
MATCHED_RETRAIN = "matched_retrain"
SAME_SCORE = 1e-4
"""An attack whose scores differ from the trace's by no more than this climbs the trace; only then its curve says the
same as the others'."""


@dataclass(frozen=True)
class OtherAttack:
    """One run of another attack.

    Args:
        kind: `baseline` or `inference`.
        name: name of the attack, unique within its kind.
        control: `matched_retrain` for the control, else empty.
        second: name of the model that takes f-'s place.
        attack: the attack.
        settings: the same as plain values.
        searcher: the audit's searcher, for an attack whose own is left empty.
        searcher_settings: the same as plain values.
    """

    kind: str
    name: str
    control: str
    second: str
    attack: Attack | InferenceAttack
    settings: Any
    searcher: Searcher | None
    searcher_settings: Any

    @property
    def label(self) -> str:
        """Unique name in files, logs and progress bars, such as `baseline.uia-0` (every one runs once)."""
        return f"{'.'.join(part for part in (self.kind, self.name, self.control) if part)}-0"


def other_attacks(run: AuditRun) -> list[OtherAttack]:
    """Every baseline and inference in order, each followed by its control where the audit has that."""
    audit = run.config.audit
    seconds = {"": UNLEARNED}
    if audit.baseline_controls and MATCHED_RETRAIN in audit.controls:
        seconds[MATCHED_RETRAIN] = retrained_name(0)
    groups: Sequence[tuple[str, Sequence[Attack | InferenceAttack], list[Any]]] = (
        (BASELINE, run.config.baselines, run.settings["baselines"]),
        (INFERENCE, run.config.inferences, run.settings["inferences"]),
    )
    return [
        OtherAttack(kind, name, control, second, attack, values, *_lent_searcher(run, attack))
        for kind, attacks, settings in groups
        for name, attack, values in zip(attack_names(attacks), attacks, settings, strict=True)
        for control, second in seconds.items()
    ]


def _lent_searcher(run: AuditRun, attack: Attack | InferenceAttack) -> tuple[Searcher | None, Any]:
    """The audit's searcher with its settings, where the attack has a place for one and nobody in it."""
    if getattr(attack, "searcher", attack) is None:
        return run.config.searcher, run.settings["searcher"]
    return None, None


def attack_names(attacks: Sequence[Attack | InferenceAttack]) -> list[str]:
    """A name of its own for every attack: its own, with that of a searcher it brings, numbered where it repeats."""
    names: list[str] = []
    for attack in attacks:
        searcher = getattr(attack, "searcher", None)
        parts = [attack.name, *([searcher_name(searcher)] if isinstance(searcher, Searcher) else [])]
        name = re.sub(r"\W", "_", "_".join(parts))  # it becomes part of dotted paths, files and tags
        number, unique = 1, name
        while unique in names:
            number += 1
            unique = f"{name}_{number}"
        names.append(unique)
    return names


def distinguishing(settings: Sequence[Any]) -> list[dict[str, Any]]:
    """Plain settings in which attacks of one class differ from one another, for people who compare them.

    Args:
        settings: settings of the attacks, in class_path/init_args form.

    Returns:
        For each attack the settings that another attack of its class has otherwise; empty where it is the only one.
    """
    found = []
    for mine in settings:
        own = mine.get("init_args") or {}
        others = [other.get("init_args") or {} for other in settings if other["class_path"] == mine["class_path"]]
        differing = [name for name in own if any(other.get(name) != own[name] for other in others)]
        found.append({name: own[name] for name in differing if not isinstance(own[name], dict | list)})
    return found


def other_jobs(
    run: AuditRun, models: SearchModels, results: SearchResults, attacks: Sequence[OtherAttack]
) -> list[Job]:
    """Every run as a job whose result is kept as soon as it is there, like a search's."""
    original, generator = (run.folder.path(weights_file(name)) for name in (ORIGINAL, GENERATOR))
    jobs = []
    for other in attacks:
        seed = seed_for(run.config.seed, other.kind, other.name)
        common = search_inputs(run, original, generator, attack=other.settings)
        if other.attack.needs_shadow:
            common["shadow"] = run.key("unlearn")  # the stage that trains it
        second = run.folder.path(weights_file(other.second))
        artefact = search_artefact(common, other.label, second, other.searcher_settings, seed)
        jobs.append(results.job(artefact, partial(_run, run, models, other, seed), shared=other.second != UNLEARNED))
    return jobs


def _run(run: AuditRun, models: SearchModels, other: OtherAttack, seed: int) -> SearchResult:
    """Runs one attack; why it does not apply is a result as well."""
    record: dict[str, Any] = {"name": other.label.removesuffix("-0"), "repeat": 0, "seed": seed}
    record |= {"attack": type(other.attack).__name__, "applicable": True, "queries": 0}
    try:
        context = models.context(other.second, other.label, seed, other.searcher, shadow=other.attack.needs_shadow)
        pair = context.pair
        assert isinstance(pair, WitnessedPair)
        pair.forget()
        if isinstance(other.attack, Attack):
            result = _reconstruct(other.label, other.attack, context)
        else:
            result = _infer(other.label, other.attack, context)
        asked = pair.asked()
    except (NotApplicable, AccessError) as error:
        return inapplicable(run.console, record, error)
    run.console.print(f"{other.label}: {result.record['queries']:,} queries", markup=False, highlight=False)
    tensors = dict(result.tensors)
    if other.kind == BASELINE:
        tensors |= _scored(models.scorer(other.second), tensors)
        record["climbs_trace"] = bool(torch.allclose(tensors["scores"], tensors["trace_scores"], atol=SAME_SCORE))
    return SearchResult(tensors, {**record, **result.record, "asked": asked}, result.curve)


def inapplicable(console: Console, record: Mapping[str, Any], error: Exception) -> SearchResult:
    """What an attack leaves behind that has nothing to work on: its reason, which the terminal shows as well."""
    reason = " ".join(str(error).split())
    console.print(f"{record['name']} does not apply: {reason}", markup=False, highlight=False)
    return SearchResult({}, {**record, "queries": 0, "applicable": False, "reason": reason})


def _reconstruct(label: str, attack: Attack, context: AttackContext) -> SearchResult:
    found = attack.reconstruct(context)
    _check_queries(label, found.queries, context.budget)
    _check_candidates(label, found, context)
    curve = [[float(value) for value in point] for point in found.curve]
    record = {"queries": found.queries, "instance_score": found.instance_score, "facts": found.facts}
    return SearchResult(reconstruction_tensors(found), record, curve)


def _infer(label: str, attack: InferenceAttack, context: AttackContext) -> SearchResult:
    finding = attack.infer(context)
    _check_queries(label, finding.queries, context.budget)
    return SearchResult(finding.tensors, {"queries": finding.queries, "answer": finding.answer})


def _check_queries(label: str, used: int, budget: int) -> None:
    if used > budget:
        raise RunError(f"{label} used {used} queries of a budget of {budget}; an attack must not exceed it")


def _check_candidates(label: str, found: Reconstruction, context: AttackContext) -> None:
    """Refuses what could not be judged later, while it is known which attack it comes from."""
    assert context.public is not None
    expected = context.public.shape[1:]
    if len(found.inputs) == 0 or len(found.scores) != len(found.inputs) or len(found.instance) != 1:
        raise RunError(
            f"{label} returned {len(found.inputs)} candidates, {len(found.scores)} scores and {len(found.instance)} "
            "instances; it needs one score for each of at least one candidate, and one instance"
        )
    for inputs in (found.inputs, found.instance):
        if inputs.shape[1:] != expected:
            raise RunError(f"{label} returned candidates of shape {list(inputs.shape[1:])}, not {list(expected)}")
        if not bool(torch.isfinite(inputs).all()):
            raise RunError(f"{label} returned a candidate with NaN or infinite values")


def _scored(scorer: TraceScorer, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trace score of what an attack found, which makes its candidates comparable with the others'."""
    scores = scorer(torch.cat([tensors["instance"], tensors["inputs"]])).score.cpu()
    return {"instance_trace_score": scores[:1], "trace_scores": scores[1:]}
