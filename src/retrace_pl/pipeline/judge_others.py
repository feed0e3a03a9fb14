"""Judges the other attacks: baselines by the attack's own metrics, inferences by the truth; each beside its control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from retrace_pl.attacks import Finding, InferenceAttack, NotApplicable, Truth
from retrace_pl.files import finite, read_json, read_tensors
from retrace_pl.pipeline.attack_stage import INFERENCE_TENSORS, INFERENCES
from retrace_pl.pipeline.judge import Judge
from retrace_pl.pipeline.other_attacks import BASELINE, INFERENCE, OtherAttack, distinguishing, other_attacks
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.search_models import make_scorer
from retrace_pl.pipeline.train_stages import load_classifier

Judged = dict[str, Any]
KEPT = ("attack", "applicable", "reason", "queries", "seed", "asked", "facts", "answer")
"""Facts about a run that `metrics.json` repeats."""


def judged_baselines(run: AuditRun, judge: Judge, searches: Mapping[str, Any]) -> dict[str, Judged]:
    """Metrics of every baseline by its name, with what it leaks beyond the prior and beyond the matched retrain.

    Args:
        run: the audit.
        judge: the evaluation-only data and the models that judge.
        searches: content of `searches.json`.

    Returns:
        For each baseline the metrics of an attack (none where it does not apply, but `reason`), `controls` (the same of
        its own matched retrain, where that ran), `leakage` (`excess` over the audit's prior, and `avoidable`) and
        `distinguished_by`, the settings that another baseline of its class has otherwise.
    """

    def judged(other: OtherAttack) -> Judged:
        facts = _kept(searches[other.label])
        return facts | (judge.summary([other.label]) if facts["applicable"] else {})

    found = _by_name(run, BASELINE, judged)
    differing = distinguishing(run.settings["baselines"])
    for (name, values), own in zip(found.items(), differing, strict=True):
        values["distinguished_by"] = own
        label = f"{BASELINE}.{name}"
        ran = [control for control, row in values["controls"].items() if row["applicable"]]
        values["leakage"] = judge.compared(f"{label}-0", ran, label) if values["applicable"] else {}
    return found


def judged_inferences(run: AuditRun, judge: Judge) -> dict[str, Judged]:
    """What every inference answered, by its name, and what the truth says to it.

    Args:
        run: the audit.
        judge: the evaluation-only data.

    Returns:
        For each inference its `answer` and how it was `judged` (neither where it does not apply, but `reason`), and
        `controls`, the same on the matched retrain, where that ran.
    """
    if not run.config.inferences:
        return {}
    records = read_json(run.folder.path(INFERENCES))
    tensors = read_tensors(run.folder.path(INFERENCE_TENSORS))
    truth = _truth(run, judge)

    def judged(other: OtherAttack) -> Judged:
        facts = _kept(records[other.label])
        if not facts["applicable"]:
            return facts
        prefix = f"{other.label}/"
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        finding = Finding(records[other.label]["answer"], records[other.label]["queries"], own)
        assert isinstance(other.attack, InferenceAttack)
        pair = make_scorer(run, judge.original, load_classifier(run, other.second).to(judge.device)).pair
        try:
            return facts | {"judged": finite(other.attack.judge(finding, pair, truth))}
        except NotApplicable as error:
            return facts | {"judged": None, "reason": " ".join(str(error).split())}

    return _by_name(run, INFERENCE, judged)


def _by_name(run: AuditRun, kind: str, judge: Callable[[OtherAttack], Judged]) -> dict[str, Judged]:
    """Judges every run of a kind; a control goes below `controls` of the attack that it belongs to."""
    found: dict[str, Judged] = {}
    for other in other_attacks(run):
        if other.kind == kind and not other.control:
            found[other.name] = judge(other) | {"controls": {}}
        elif other.kind == kind:
            found[other.name]["controls"][other.control] = judge(other)
    return found


def _kept(record: Mapping[str, Any]) -> Judged:
    return {name: record[name] for name in KEPT if name in record}


def _truth(run: AuditRun, judge: Judge) -> Truth:
    unseen = judge.deleted.heldout_inputs
    return Truth(
        deleted=judge.deleted.records,
        unseen=judge.deleted.records[:0] if unseen is None else unseen,
        deleted_classes=tuple(run.data.deleted_classes) if run.data.deletion == "class" else (),
    )
