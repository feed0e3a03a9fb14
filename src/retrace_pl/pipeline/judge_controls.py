"""Judges the controls: what they found, what the attack leaks beyond each, and whether too much was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace_pl.audit import CONTROLS, excess_leakage, excess_over_pairs, over_forgetting
from retrace_pl.metrics import wilson_interval
from retrace_pl.pipeline.control_models import wrong_class
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_plan import AUDITED
from retrace_pl.pipeline.train_stages import UNLEARNED, load_classifier, retrained_name

BATCH = 512


def judged_controls(
    run: AuditRun, judge: Judge, judged: Mapping[str, Any], searches: Mapping[str, Any]
) -> dict[str, Any]:
    """What every control that ran found, in the order of the registry, by the attack's own metrics.

    Args:
        run: the audit.
        judge: the evaluation-only data and the models that judge.
        judged: summaries of the searches by name.
        searches: content of `searches.json`.

    Returns:
        Control -> summary; the identity control with its largest trace, the wrong class with how often it found its
        own class.
    """
    found = {name: judged[name] for name in CONTROLS if name in judged}
    if "identity" in found:
        found["identity"] |= {key: searches["identity-0"][key] for key in ("max_trace", "score_spread")}
    if "wrong_class" in found:
        found["wrong_class"] |= {"own": _own_class(run, judge)}
    if "holdout" in run.config.audit.controls and judge.holdout is not None:
        found["holdout"] = judge.summary(judge.labels(AUDITED), against=judge.holdout)
    return found


def _own_class(run: AuditRun, judge: Judge) -> dict[str, Any]:
    """How often the search after deleting another class found that class, by the evaluator."""
    index, level = wrong_class(run), run.config.audit.level
    labels = torch.cat([judge.predicted(label) for label in judge.labels("wrong_class")])
    hits = int((labels == index).sum())
    low, high = wilson_interval(hits, len(labels), level)
    return {"class": run.data.classes[index], "sr_oracle": hits / len(labels), "interval": [low, high]}


def control_leakage(run: AuditRun, judge: Judge) -> dict[str, Any]:
    """What the attack found beyond the null pairs, the never-trained pairs and the wrong class, and over-forgetting.

    Args:
        run: the audit.
        judge: the evaluation-only data and the models that judge.

    Returns:
        `excess_null`, `excess_never_trained`, `excess_wrong_class` and `over_forgetting`; one whose control did not run
        is None. The pairs of the first two differ in their models, so their spread enters the interval; the wrong class
        has one pair of models and several searches.
    """
    settings = judge.bootstrap_settings()
    audited = [judge.outcomes(label) for label in judge.labels(AUDITED)]
    result: dict[str, Any] = {}
    for name in ("null", "never_trained", "wrong_class"):
        control = [judge.outcomes(label) for label in judge.labels(name)]
        compare = excess_leakage if name == "wrong_class" else excess_over_pairs
        result[f"excess_{name}"] = compare(audited, control, **settings).as_dict() if control else None
    result["over_forgetting"] = _over_forgetting(run, judge)
    return result


def _over_forgetting(run: AuditRun, judge: Judge) -> dict[str, Any] | None:
    if "matched_retrain" not in run.config.audit.controls:
        return None
    forget, settings = run.data.split("forget"), judge.bootstrap_settings()
    names = [UNLEARNED, *(retrained_name(repeat) for repeat in range(run.config.audit.repeats))]
    losses = [
        _losses(load_classifier(run, name).to(judge.device), forget.inputs, forget.labels, judge.device)
        for name in names
    ]
    options = {name: settings[name] for name in ("level", "resamples", "seed")}
    return over_forgetting(losses[0], losses[1:], **options).as_dict()


def stored_outcomes(judge: Judge) -> dict[str, Tensor]:
    """Outcome of every candidate of the audited pair and of the controls, all repeats, for pooling several audits."""
    names = [AUDITED, *(control for control in CONTROLS if control != "holdout")]
    labels = [label for name in names for label in judge.labels(name)]
    return {f"outcomes.{label}": torch.as_tensor(judge.outcomes(label)).float() for label in labels}


@torch.no_grad()
def _losses(model: nn.Module, inputs: Tensor, labels: Tensor, device: torch.device) -> Any:
    """Cross-entropy of every record under its own label [n], in nats."""
    parts = [
        functional.cross_entropy(model(batch.to(device)).double().cpu(), targets, reduction="none")
        for batch, targets in zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True)
    ]
    return np.asarray(torch.cat(parts))
