"""What every search of an audit shares: generator, f+, the trace scores, and their calibration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from retrace_pl.attacks import AttackContext, Shadow
from retrace_pl.errors import InputError
from retrace_pl.files import write_json
from retrace_pl.pipeline.observers import search_observer
from retrace_pl.pipeline.runner import AuditRun
from retrace_pl.pipeline.scoring import build_scorer, describe_scorer, ways_to_run
from retrace_pl.pipeline.shadow import load_shadow
from retrace_pl.pipeline.trace_weights import trace_weights
from retrace_pl.pipeline.train_stages import ORIGINAL, load_classifier, load_generator
from retrace_pl.pipeline.training import torch_device
from retrace_pl.pipeline.witness import WitnessedPair
from retrace_pl.searchers import Searcher
from retrace_pl.traces import Access, Calibration, TraceScorer, calibrate

CALIBRATION = "calibration.json"


class SearchModels:
    """Generator, f+ and one fitted scorer for each pair of models, on the device of the search."""

    def __init__(self, run: AuditRun) -> None:
        self.run = run
        self.device = torch_device(run.config.trainer)
        self.generator = load_generator(run).to(self.device).requires_grad_(False)
        self.original = load_classifier(run, ORIGINAL).to(self.device)
        self.public = run.data.split("public").inputs
        self._scorers: dict[tuple[str, str], TraceScorer] = {}
        self._shadow: Shadow | None = None

    def scorer(self, second: str, first: str = ORIGINAL) -> TraceScorer:
        """The trace score of (`first`, `second`), normalised on the public split; `first` is f+ but in controls."""
        names = (first, second)
        if names not in self._scorers:
            before, after = (
                self.original if name == ORIGINAL else load_classifier(self.run, name).to(self.device) for name in names
            )
            self._scorers[names] = make_scorer(self.run, before, after)
            self._scorers[names].fit(self.public)
        return self._scorers[names]

    def context(
        self,
        second: str,
        label: str,
        seed: int,
        searcher: Searcher | None,
        *,
        shadow: bool = False,
        first: str = ORIGINAL,
    ) -> AttackContext:
        """What an attack on (`first`, `second`) may see.

        Args:
            second: name of the model that takes f-'s place.
            label: name of the search in logs and progress bars.
            seed: seed of the attack.
            searcher: who searches, for attacks without a searcher of their own.
            shadow: whether the attack learns from an unlearning of the attacker's own.
            first: name of the model that takes f+'s place.
        """
        scorer = self.scorer(second, first)
        return AttackContext(
            pair=scorer.pair,
            scorer=scorer,
            generator=self.generator,
            latent=self.run.config.latent,
            public=self.public,
            budget=self.run.config.queries,
            seed=seed,
            observer=search_observer(self.run, self.generator, label),
            searcher=searcher,
            probe=deleted_class_probe(self.run, self.original),
            shadow=self.shadow() if shadow else None,
        )

    def shadow(self) -> Shadow:
        """The attacker's own unlearning, read once."""
        if self._shadow is None:
            self._shadow = load_shadow(self.run)
        return self._shadow


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
    pair = WitnessedPair(original, second, Access(run.config.access), **ways_to_run(traces))
    return build_scorer(traces, pair, trace_weights(run), run.data.deletion)


def calibrate_traces(run: AuditRun, scorer: TraceScorer) -> Calibration:
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
    measured = describe_scorer(scorer, run.data.classes)
    write_json(run.folder.path(CALIBRATION), {"trace": measured, **calibration.to_dict()})
    values = ", ".join(f"{name} {value:.3f}" for name, value in calibration.auroc.items())
    run.console.print(f"trace calibration ({measured}), AUROC: {values}")
    return calibration
