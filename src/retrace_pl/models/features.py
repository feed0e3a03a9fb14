"""A classifier's features as a module of their own."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from retrace_pl.models.base import Classifier


class FeatureExtractor(nn.Module):
    """Frozen copy of a classifier that returns its features, as torchmetrics' FID and KID expect.

    Args:
        classifier: The classifier; it is copied, never changed.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.num_features = classifier.num_features
        self.classifier = copy.deepcopy(classifier).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in eval mode whatever is asked for: the extractor is a fixed measuring device."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs [n, ...] to features [n, num_features]."""
        return self.classifier.features(inputs)
