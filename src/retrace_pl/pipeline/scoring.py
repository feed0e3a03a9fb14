"""The trace score that an audit's settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace_pl.pipeline.config import TraceSettings
from retrace_pl.traces import DirectionalScorer, ModelPair, TraceScorer, TraceWeights
from retrace_pl.traces.directional import Deletion

RUNNING = ("memory_format", "autocast", "compile")
_PLAIN = {"autocast": "none", "compile": False}


def ways_to_run(settings: TraceSettings) -> dict[str, Any]:
    """The settings of a model pair that say how its models are run; see `retrace_pl.traces.Execution`."""
    return {name: getattr(settings, name) for name in RUNNING}


def trace_key(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the score for keys; new ones at their default are left out, as in versions that had none of them.

    Args:
        settings: the section `traces`, as plain values.
    """
    return {name: value for name, value in settings.items() if _PLAIN.get(name, ...) != value}


def build_scorer(settings: TraceSettings, pair: ModelPair, weights: TraceWeights, deletion: Deletion) -> TraceScorer:
    """The score of one pair, not fitted yet.

    Args:
        settings: signal, normaliser, sign and batch size.
        pair: the two models.
        weights: weights of the signals; as in the settings, or fitted.
        deletion: what kind of deletion the auditor was told of: whole classes or single records. Which ones, a
            directional score infers.
    """
    if settings.signal == "directional":
        return DirectionalScorer(pair, weights, deletion, batch_size=settings.batch_size)
    return TraceScorer(pair, weights, settings.normaliser, settings.sign, settings.batch_size)


def describe_scorer(scorer: TraceScorer, names: tuple[str, ...] = ()) -> str:
    """What a fitted score measures, in words.

    Args:
        scorer: the fitted scorer.
        names: names of the classes; their numbers are shown where there is none.
    """
    if not isinstance(scorer, DirectionalScorer):
        return "gap: any difference between the two models"
    if scorer.deletion == "records":
        return "directional: towards the original model's own labels"
    if not scorer.classes:
        return "directional: no class stands out"
    shown = ", ".join(names[label] if label < len(names) else str(label) for label in scorer.classes)
    doubt = "" if scorer.evidence is None or scorer.evidence.clear else ", not clearly"
    return f"directional: towards {shown}, inferred from public records{doubt}"
