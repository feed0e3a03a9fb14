"""What the trace says about known inputs, and how surprising its scores are: groups, reliability and p-values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrace_pl.audit import FDR, Significance, pair_p_value, significance
from retrace_pl.pipeline.control_models import control_pairs
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.run_folder import seed_for
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_plan import AUDITED
from retrace_pl.pipeline.train_stages import UNLEARNED
from retrace_pl.tasks import Answers, Scoring
from retrace_pl.traces import TraceDeltas, reliability, score_groups, scores_of

SHOWN_TRACES = 2000
"""Inputs of a group that are scored, at most."""

SYNTHETIC = 500
"""Inputs of noise, and mixtures."""

KNOWN = "known"
"""Name of the question about the inputs of all groups."""


@dataclass
class Evidence:
    """Facts for `metrics.json` and tensors for `evaluation.safetensors`.

    Args:
        calibration: further facts about the calibration of the score.
        significance: how surprising the candidates are by their `score` and by their `likeness` to the deleted data;
            None without the null control.
        tensors: signals and scores by group, p- and q-values of the first repeat's candidates by score and likeness.
    """

    calibration: dict[str, Any]
    significance: dict[str, Any] | None
    tensors: dict[str, Tensor]


def gather_evidence(run: AuditRun, judge: Judge) -> Evidence:
    """Scores known inputs with the audited pair, and the candidates of null pairs with theirs.

    Args:
        run: the audit.
        judge: the evaluation-only data and the candidates.
    """
    calibration, tensors = _groups(run, judge)
    facts, values = _significance(run, judge)
    return Evidence(calibration, facts, tensors | values)


def trace_questions(run: AuditRun, judge: Judge) -> list[Scoring]:
    """The raw differences of the known inputs, and of the candidates that p-values are about, as questions.

    Args:
        run: the audit.
        judge: the evaluation-only data and the candidates.
    """
    known = torch.cat(list(_inputs(run, judge).values()))
    sets = [(KNOWN, UNLEARNED, known)]
    null = _null_searches(run)
    if null:
        audited = [(label, UNLEARNED) for label in judge.labels(AUDITED)]
        sets += [(label, second, judge.candidates[f"{label}/inputs"]) for label, second in [*audited, *null]]
    size = run.config.traces.batch_size
    return [
        Scoring.of(f"traces/{name}", inputs, partial(_differences, judge, second, name == KNOWN), size)
        for name, second, inputs in sets
    ]


@torch.enable_grad()  # the loop around it is without gradients, and the gradient signal needs them
def _differences(judge: Judge, second: str, all_signals: bool, inputs: Tensor) -> Answers:
    """The raw differences of the pair with this second model; of the score's signals, or of all that it may see."""
    scorer = judge.search_models.scorer(second)
    found = scorer.deltas(inputs, scorer.pair.access.signals if all_signals else None)
    return {name: values for name, values in found._asdict().items() if values is not None}


def _deltas(judge: Judge, name: str, device: torch.device) -> TraceDeltas:
    """The answers to one of the questions."""
    return TraceDeltas(**{signal: values.to(device) for signal, values in judge.answers[f"traces/{name}"].items()})


def _groups(run: AuditRun, judge: Judge) -> tuple[dict[str, Any], dict[str, Tensor]]:
    groups = _inputs(run, judge)
    scorer = judge.search_models.scorer(UNLEARNED)
    sizes = [len(inputs) for inputs in groups.values()]
    deltas = _deltas(judge, KNOWN, scorer.device)
    tensors: dict[str, Tensor] = {}
    for signal, values in {**deltas.named(), "score": scorer.combine(deltas)}.items():
        parts = torch.split(values.detach().cpu(), sizes)
        tensors |= {f"traces.{group}.{signal}": part.clone() for group, part in zip(groups, parts, strict=True)}
    scores = {group: tensors[f"traces.{group}.score"].numpy() for group in groups}
    positive = ("forget", "unseen") if run.data.deletion == "class" else ("forget",)
    negative = [group for group in ("retain", "public", "unseen") if group in scores and group not in positive]
    curve = reliability(
        np.concatenate([scores[group] for group in positive if group in scores]),
        np.concatenate([scores[group] for group in negative]),
        level=run.config.audit.level,
        seed=seed_for(run.config.seed, "reliability"),
    )
    facts = {"groups": score_groups(scores), "reliability": curve.as_dict()}
    facts["reliability"] |= {"positive_groups": list(positive), "negative_groups": negative}
    return facts, tensors


def _inputs(run: AuditRun, judge: Judge) -> dict[str, Tensor]:
    """Deleted, retained, unseen (of the deleted kind), public (of the retained kind), noise and mixed inputs."""
    public, heldout = run.data.split("public"), judge.deleted.heldout_inputs
    kept = public.inputs
    if run.data.deletion == "class":
        kept = kept[~torch.isin(public.labels, torch.tensor(run.data.deleted_classes))]
    groups = {
        "forget": run.data.split("forget").inputs,
        "retain": run.data.split("retain").inputs,
        "unseen": heldout if heldout is not None and len(heldout) else run.data.split("test").inputs,
        "public": kept,
    }
    groups = {name: inputs[_some(len(inputs))] for name, inputs in groups.items()}
    return groups | judge.domain.calibration_inputs(kept, SYNTHETIC, partial(seed_for, run.config.seed))


def _some(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SHOWN_TRACES]


def _significance(run: AuditRun, judge: Judge) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """P-values of the selected candidates against those that the null pairs' searches selected.

    By the score: every candidate keeps the raw differences of the pair it was found on, and all of them are brought to
    the audited pair's scale. By likeness: how much it resembles the deleted data for the judge, who is the same for
    all. Rivals and other attacks choose their candidates in another way, so they have no p-values.
    """
    null = [label for label, _ in _null_searches(run)]
    if not null:
        return None, {}
    audited, labels = judge.search_models.scorer(UNLEARNED), judge.labels(AUDITED)
    everybody = [*labels, *null]
    deltas = [_deltas(judge, label, audited.device) for label in everybody]
    scores = [part.double().numpy() for part in scores_of(audited, deltas)]
    likeness = [judge.likeness(label) for label in everybody]
    facts: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    for name, values in (("score", scores), ("likeness", likeness)):
        ours, theirs = values[: len(labels)], values[len(labels) :]
        found = [significance(own, theirs) for own in ours]
        facts[name] = _facts(judge, labels, found, ours, theirs)
        tensors |= {f"{AUDITED}.{name}_p": found[0].p, f"{AUDITED}.{name}_q": found[0].q}
    return facts, {name: torch.from_numpy(values).float() for name, values in tensors.items()}


def _facts(
    judge: Judge, labels: list[str], found: list[Significance], ours: list[Any], theirs: list[Any]
) -> dict[str, Any]:
    recognised = [_recognised(judge, label, one) for label, one in zip(labels, found, strict=True)]
    mean, null_means = float(np.mean([own.mean() for own in ours])), [float(part.mean()) for part in theirs]
    return {
        "level": FDR,
        "candidates": sum(len(one.p) for one in found),
        "significant": sum(int(one.significant().sum()) for one in found),
        "significant_and_recognised": None if None in recognised else sum(filter(None, recognised)),
        "null_candidates": found[0].null_candidates,
        "null_pairs": found[0].null_pairs,
        "pair_p": pair_p_value(mean, null_means),
        "mean": mean,
        "null_means": null_means,
        "repeats": [one.as_dict() for one in found],
    }


def _null_searches(run: AuditRun) -> list[tuple[str, str]]:
    """Label and second model of every search of a null pair."""
    if "null" not in run.config.audit.controls:
        return []
    return [(f"null-{repeat}", second) for repeat, (_, second) in enumerate(control_pairs(run, "null"))]


def _recognised(judge: Judge, label: str, found: Significance) -> int | None:
    """How many of the significant candidates the evaluator takes for deleted data; None where that is not defined."""
    if not judge.counts:
        return None
    return int((found.significant() & np.asarray(judge.outcomes(label), dtype=bool)).sum())
