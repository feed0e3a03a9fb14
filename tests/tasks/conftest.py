"""Real digits, and a judge of them whose answers are known: the nearest mean image."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from retrace_pl.models import Classifier
from retrace_pl.tasks import Reference

FORGOTTEN = 3


class Centroids(Classifier):
    """Assigns the class of the nearest mean image; its features are the pixels."""

    def __init__(self, means: Tensor) -> None:
        super().__init__()
        self.num_classes, self.num_features = means.flatten(1).shape
        self.means = nn.Parameter(means.flatten(1))
        self.dropout = nn.Dropout(0.9)

    def features(self, inputs: Tensor) -> Tensor:
        return self.dropout(inputs.flatten(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return -torch.cdist(self.features(inputs), self.means)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


@pytest.fixture(scope="module")
def evaluator(digits) -> Centroids:
    images, labels = (t[1::2] for t in digits)
    return Centroids(torch.stack([images[labels == c].mean(dim=0) for c in range(10)])).eval()


@pytest.fixture(scope="module")
def reference(digits) -> Reference:
    images, labels = (t[::2] for t in digits)
    same, other = images[labels == FORGOTTEN], images[labels != FORGOTTEN]
    return Reference(
        deleted_inputs=same[:60],
        deleted_labels=torch.full((60,), FORGOTTEN),
        target_classes=(FORGOTTEN,),
        num_classes=10,
        heldout_inputs=same[60:],
        other_inputs=other,
        centre=images.mean(dim=0),
    )
