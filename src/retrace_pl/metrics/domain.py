"""What an evaluation has to know about one kind of data: distances, metrics, reference values and words.

Everything else of an audit is the same for all kinds: inputs are tensors [n, ...] with classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor
from torchmetrics import Metric

from retrace_pl.metrics.distances import Nearest, distance_matrix, nearest_records, pairwise_mse
from retrace_pl.metrics.features import FeatureFID, FeatureKID, FeatureKL
from retrace_pl.metrics.floors import intra_class_mse, mse_floors
from retrace_pl.metrics.glossary import Glossary
from retrace_pl.metrics.image_glossary import IMAGES
from retrace_pl.metrics.manifold import PrecisionRecall
from retrace_pl.metrics.pixels import CentredCosine, Diversity, NearestMSE, NearestPSNR, PairwiseMSE
from retrace_pl.metrics.structure import SSIM, ssim_window
from retrace_pl.metrics.synthetic import mixup, uniform_noise

__all__ = ["Domain", "ImageDomain", "Splits"]

Splits: TypeAlias = Callable[[str], Any]
"""Name of a split -> its records, with `inputs` [n, ...]."""


@runtime_checkable
class Domain(Protocol):
    """One kind of data, as the evaluation, the controls and the report see it.

    Attributes:
        glossary: Words for its metrics.
        metric_names: Names of all results of an evaluation, in their order; None stands for one that does not apply.
        success_metric: Name of the share of candidates as close to a deleted record as these are to each other.
        record_metric: Name of what record leakage compares.
        heldout_metrics: Results that are also taken of unseen real records, as reference values ``heldout_NAME``.
    """

    glossary: Glossary
    metric_names: tuple[str, ...]
    success_metric: str
    record_metric: str
    heldout_metrics: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """What ``metrics.json`` says about the kind of data; at least its name under ``domain``, unless images."""

    def fitted(self, split: Splits) -> Domain:
        """The domain with what it needs of the data besides the deleted records; itself where it needs nothing.

        Args:
            split: Gives the public and the evaluator's records.
        """

    def nearest(self, candidates: Tensor, records: Tensor) -> Nearest:
        """The record nearest to every candidate.

        Args:
            candidates: Shape [n, ...].
            records: Shape [m, ...].
        """

    def distances(self, candidates: Tensor, records: Tensor) -> Tensor:
        """Distances [n, m] between all candidates and records, float64, at least 0.

        Args:
            candidates: Shape [n, ...].
            records: Shape [m, ...].
        """

    def closeness(self, distances: Tensor) -> Tensor:
        """The values of the glossary's closeness metric that belong to distances, of the same shape."""

    def success_threshold(self, records: Tensor, labels: Tensor) -> float | None:
        """Largest distance to a deleted record that counts as a success; None where no class has two records.

        Args:
            records: The deleted records, shape [m, ...].
            labels: Their classes, int64 of shape [m].
        """

    def successes(self, candidates: Tensor, records: Tensor, threshold: float | None) -> dict[str, Tensor]:
        """Successes that need no model: name -> booleans [n].

        Args:
            candidates: Shape [n, ...].
            records: The deleted records, shape [m, ...].
            threshold: `success_threshold`, without which success by distance is left out.
        """

    def centre(self, inputs: Tensor) -> Tensor | None:
        """Mean input, shape [...] of one; None where inputs have no mean."""

    def own_metrics(self) -> dict[str, Metric]:
        """Those of `input_metrics` that compare candidates [n, ...] with no record."""

    def input_metrics(self, records: Tensor, centre: Tensor | None) -> dict[str, Metric]:
        """Metrics that read candidates [n, ...] themselves, by any name; each computes a number or names to numbers.

        Args:
            records: What candidates are compared with, shape [m, ...].
            centre: `centre` of other records.
        """

    def feature_metrics(self, features: Tensor, neighbours: int) -> dict[str, Metric]:
        """Metrics that read the evaluator's features [n, F] of candidates.

        Args:
            features: Features of the records that candidates are compared with, shape [m, F].
            neighbours: k of precision and recall.
        """

    def floors(
        self,
        deleted: Tensor,
        labels: Tensor,
        heldout: Tensor | None,
        heldout_labels: Tensor | None,
        other: Tensor | None,
    ) -> dict[str, float | None]:
        """Reference values of reconstructions without any model; None where their records are missing.

        Args:
            deleted: Deleted records, shape [m, ...].
            labels: Their classes, int64 of shape [m].
            heldout: Unseen records of the same classes, shape [h, ...].
            heldout_labels: Their classes.
            other: Records of other classes, shape [o, ...].
        """

    def calibration_inputs(self, real: Tensor, size: int, seed_of: Callable[[str], int]) -> dict[str, Tensor]:
        """Inputs that are no records, by the name of their kind, to see what a score makes of them.

        Args:
            real: Real inputs, shape [n, ...].
            size: How many of each kind.
            seed_of: Purpose -> seed.
        """

    def texts(self, inputs: Tensor) -> list[str] | None:
        """What inputs [n, ...] say; None for inputs that are looked at, not read."""


class ImageDomain:
    """Images [n, C, H, W] with pixels in [0, 1], or other float inputs on a common scale."""

    glossary = IMAGES
    metric_names: tuple[str, ...] = (
        "mse",
        "pairwise_mse",
        "psnr",
        "ssim",
        "cs",
        "sr_oracle",
        "sr_original",
        "sr_mse",
        "fid_oracle",
        "kid_oracle",
        "kl",
        "label_kl",
        "diversity",
        "precision",
        "recall",
    )
    success_metric = "sr_mse"
    record_metric = "relative_nearest_mse"
    heldout_metrics: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Nothing: results that name no kind of data are about images."""
        return {}

    def fitted(self, split: Splits) -> ImageDomain:
        """Itself: distances between images need no other data."""
        return self

    def nearest(self, candidates: Tensor, records: Tensor) -> Nearest:
        """See `nearest_records`: mean squared difference."""
        return nearest_records(candidates, records)

    def distances(self, candidates: Tensor, records: Tensor) -> Tensor:
        """See `distance_matrix`: mean squared differences [n, m]."""
        return distance_matrix(candidates, records)

    def closeness(self, distances: Tensor) -> Tensor:
        """The distances themselves: closeness is the mean squared error."""
        return distances

    def success_threshold(self, records: Tensor, labels: Tensor) -> float | None:
        """See `intra_class_mse`: the deleted records' own mean squared difference within a class."""
        return intra_class_mse(records, labels)

    def successes(self, candidates: Tensor, records: Tensor, threshold: float | None) -> dict[str, Tensor]:
        """``sr_mse``: squared error to the nearest deleted record at or below the threshold."""
        if threshold is None:
            return {}
        return {"sr_mse": nearest_records(candidates, records).mse <= threshold}

    def centre(self, inputs: Tensor) -> Tensor | None:
        """Mean image."""
        return inputs.mean(dim=0)

    def own_metrics(self) -> dict[str, Metric]:
        """Diversity."""
        return {"diversity": Diversity()}

    def input_metrics(self, records: Tensor, centre: Tensor | None) -> dict[str, Metric]:
        """Squared errors, centred cosine, diversity; structural similarity where the images are large enough."""
        assert centre is not None
        found: dict[str, Metric] = {
            "mse": NearestMSE(records),
            "pairwise_mse": PairwiseMSE(records),
            "psnr": NearestPSNR(records),
            "cs": CentredCosine(records, centre),
            **self.own_metrics(),
        }
        if ssim_window(tuple(records.shape[1:])) is not None:
            found["ssim"] = SSIM(records)
        return found

    def feature_metrics(self, features: Tensor, neighbours: int) -> dict[str, Metric]:
        """Fréchet and kernel distance, Gaussian divergence, precision and recall."""
        return {
            "fid_oracle": FeatureFID(features),
            "kid_oracle": FeatureKID(features),
            "kl": FeatureKL(features),
            "manifold": PrecisionRecall(features, neighbours=neighbours),
        }

    def floors(
        self,
        deleted: Tensor,
        labels: Tensor,
        heldout: Tensor | None,
        heldout_labels: Tensor | None,
        other: Tensor | None,
    ) -> dict[str, float | None]:
        """See `mse_floors`; and ``deleted_diversity``, the deleted records' own mean pairwise squared difference."""
        diversity = float(pairwise_mse(deleted))
        return {
            **mse_floors(deleted, labels, heldout, heldout_labels, other),
            "deleted_diversity": None if diversity != diversity else diversity,
        }

    def calibration_inputs(self, real: Tensor, size: int, seed_of: Callable[[str], int]) -> dict[str, Tensor]:
        """``noise`` and ``mixup``; none for inputs that are not floating point."""
        if not real.is_floating_point():
            return {}
        return {"noise": uniform_noise(real, size, seed_of("noise")), "mixup": mixup(real, size, seed_of("mixup"))}

    def texts(self, inputs: Tensor) -> list[str] | None:
        """None: images are looked at."""
        return None
