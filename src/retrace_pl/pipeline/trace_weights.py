"""The weights of the trace's signals: as set, or fitted on the shadow pair before anything is searched."""

from __future__ import annotations

import torch

from retrace_pl.files import read_json, write_json
from retrace_pl.pipeline.artefacts import TRACE_WEIGHTS
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.scoring import build_scorer
from retrace_pl.pipeline.shadow import load_shadow
from retrace_pl.traces import TraceWeights, fit_weights


def fit_trace_weights(run: AuditRun) -> list[str]:
    """Fits the weights where the settings ask for it, and returns the names of the files written.

    The audited pair plays no part: it is the attacker who fits, on public records, before the first query. What was
    deleted in the shadow and its unseen kind are the positives. The normaliser sees what it sees in the audit: without
    the shadow's deleted kind where the public set lacks the audited one.
    """
    path = run.folder.path(TRACE_WEIGHTS)
    path.unlink(missing_ok=True)
    traces = run.config.traces
    if not traces.fit_weights:
        return []
    shadow = load_shadow(run)
    scorer = build_scorer(traces, shadow.pair, TraceWeights(), run.data.deletion)
    kept = torch.cat([shadow.retained, shadow.unseen_retained])
    gone = shadow.deleted if run.data.deletion == "records" else torch.cat([shadow.deleted, shadow.unseen])
    if run.data.deletion == "records":
        kept = torch.cat([kept, shadow.unseen])
    scorer.fit(torch.cat([kept, gone]) if run.data.public_includes_deleted else kept)
    fitted = fit_weights(scorer, gone, kept)
    write_json(path, fitted.as_dict())
    values = ", ".join(f"{name} {getattr(fitted.weights, name):.2f}" for name in fitted.coefficients)
    run.console.print(f"trace weights fitted on the shadow unlearning: {values}")
    return [TRACE_WEIGHTS]


def trace_weights(run: AuditRun) -> TraceWeights:
    """The weights that an audit's scores use."""
    if not run.config.traces.fit_weights:
        return run.config.traces.weights
    return TraceWeights(**read_json(run.folder.path(TRACE_WEIGHTS))["weights"])
