"""Judge reconstructions: a test loop over candidates that fills every metric of an audit."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from retrace_pl.errors import InputError, RunError
from retrace_pl.metrics import ImageDomain, LabelKL, SuccessRate
from retrace_pl.models import Classifier
from retrace_pl.tasks.reference import Reference
from retrace_pl.tasks.scoring import Answers

__all__ = ["METRICS", "EvaluationTask", "Results", "ask_judges"]

METRICS = ImageDomain.metric_names
"""Names of the results for images, in the order of ``metrics.json``; other domains have theirs."""

Results: TypeAlias = dict[str, Any]
"""The metrics of the domain and ``score``, None where one does not apply; ``intervals`` to name -> [low, high]."""


class EvaluationTask(LightningModule):
    """Test loop over candidates that computes every metric against the deleted records.

    Nothing is trained. Batches are candidates [n, ...] or tuples that start with them; a second member holds the
    networks' answers about them (`ask_judges`), which are then not asked again. Which metrics there are is up to
    the reference's domain. After `Trainer.test` the numbers are in `results` as plain floats, None where a metric does
    not apply: the ones that describe a distribution (such as ``fid_oracle``, ``label_kl`` and ``recall``) for one
    candidate, class-based success where the deletion is not tied to classes, SSIM for small images.
    Run it on one CPU or CUDA device: a distributed sampler repeats candidates to fill its last batch, and the sums are
    in float64. On several devices the answers are what takes time: `score_together` divides them.

    Args:
        evaluator: Classifier that saw neither the original nor the unlearned model's training data.
        original: f+, for ``sr_original``; None leaves that out.
        reference: What to compare with.
        level: Confidence level of the success rates' Wilson intervals.
        neighbours: k of precision and recall.
        max_records: Most records the feature metrics use, whose cost is quadratic in them; a larger reference is
            represented by a random draw. The other metrics use all.
        seed: Seed of that draw.
    """

    def __init__(
        self,
        evaluator: Classifier,
        original: Classifier | None,
        reference: Reference,
        level: float = 0.95,
        neighbours: int = 3,
        max_records: int = 2000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.evaluator = evaluator
        self.original = original
        self.reference = reference
        self.level = level
        self.neighbours = neighbours
        self.max_records = max_records
        self.seed = seed
        self.results: Results = {}
        self.metrics = nn.ModuleDict()
        self._threshold: float | None = None

    def on_test_start(self) -> None:
        """Build fresh metrics on the task's device; the reference goes through the evaluator once."""
        reference = self.reference
        records, evaluated = reference.records, reference.evaluated(self.evaluator)
        order = torch.randperm(len(records), generator=torch.Generator().manual_seed(self.seed))
        features = evaluated.features[order[: self.max_records].sort().values]
        self._threshold = reference.success_threshold
        by_input = reference.domain.input_metrics(records, reference.mean_input)
        by_feature = reference.domain.feature_metrics(features, self.neighbours)
        success = {name: SuccessRate(self.level) for name in self._success_names()}
        by_label: dict[str, Metric] = {"label_kl": LabelKL(evaluated.labels, reference.num_classes)}
        self.metrics = nn.ModuleDict(
            {
                kind: nn.ModuleDict(group)
                for kind, group in (
                    ("inputs", by_input),
                    ("features", by_feature),
                    ("labels", by_label),
                    ("success", success),
                )
            }
        ).to(self.device)

    def _success_names(self) -> list[str]:
        names = list(self._successes(self.reference.records[:1]))
        if self.reference.class_based:
            names += ["sr_oracle"] if self.original is None else ["sr_oracle", "sr_original"]
        return names

    def _successes(self, inputs: Tensor) -> dict[str, Tensor]:
        """Successes of candidates by the domain's own standards, booleans [n]."""
        records = self.reference.records.to(inputs.device)
        return self.reference.domain.successes(inputs, records, self._threshold)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Feed one batch of candidates to every metric.

        Raises:
            InputError: Where candidates and records have different shapes.
            RunError: Where a candidate is not finite.
        """
        inputs: Tensor = batch[0] if isinstance(batch, tuple | list) else batch
        expected = self.reference.records.shape[1:]
        if inputs.shape[1:] != expected:
            raise InputError(f"candidates have shape {list(inputs.shape[1:])}, the deleted records {list(expected)}")
        if not bool(torch.isfinite(inputs).all()):
            raise RunError("a candidate holds NaN or infinite values: the generator or the search diverged")
        given = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
        answers = given if isinstance(given, dict) else ask_judges(inputs, self.evaluator, self.original)
        labels = answers["logits"].argmax(dim=1)
        self._update("inputs", inputs)
        self._update("features", answers["features"])
        self._update("labels", labels)
        success = self._group("success")
        if "sr_oracle" in success:
            success["sr_oracle"].update(self.reference.is_target(labels))
        if "sr_original" in success and self.original is not None:
            success["sr_original"].update(self.reference.is_target(answers["original"].argmax(dim=1)))
        for name, values in self._successes(inputs).items():
            success[name].update(values)

    def on_test_epoch_end(self) -> None:
        """Compute and log all metrics (``test/NAME``) and put them into `results`."""
        values: dict[str, Tensor] = {}
        intervals: dict[str, list[float]] = {}
        for kind in ("inputs", "features", "labels"):
            for name, metric in self._group(kind).items():
                value = metric.compute()
                values.update(value if isinstance(value, dict) else {name: value})
        for name, metric in self._group("success").items():
            rate = metric.compute()
            values[name] = rate["rate"]
            intervals[name] = [float(rate["low"]), float(rate["high"])]
        plain = {name: _plain(values.get(name)) for name in self.reference.domain.metric_names}
        self.results = {**plain, "score": None, "intervals": intervals}
        self.log_dict({f"test/{name}": value for name, value in plain.items() if value is not None})

    def _group(self, kind: str) -> dict[str, Metric]:
        group = self.metrics[kind]
        assert isinstance(group, nn.ModuleDict)
        return {name: metric for name, metric in group.items() if isinstance(metric, Metric)}

    def _update(self, kind: str, values: Tensor) -> None:
        for metric in self._group(kind).values():
            metric.update(values)


def ask_judges(inputs: Tensor, evaluator: Classifier, original: Classifier | None) -> Answers:
    """What the networks say about candidates.

    Args:
        inputs: Candidates [n, ...], on the networks' device.
        evaluator: The independent evaluation classifier.
        original: f+, or None.

    Returns:
        ``features`` [n, F] and ``logits`` [n, K] of the evaluator, and ``original``, the logits [n, K] of f+.
    """
    answers = {"features": evaluator.features(inputs).flatten(1), "logits": evaluator(inputs)}
    return answers if original is None else answers | {"original": original(inputs)}


def _plain(value: Tensor | None) -> float | None:
    """A float, or None for a metric that was not computed or is not defined for so few candidates."""
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number
