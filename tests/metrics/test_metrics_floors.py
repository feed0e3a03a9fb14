"""Floors: by hand, by brute force and on real digits."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.datasets import load_digits

from retrace_pl.errors import InputError
from retrace_pl.metrics import Diversity, intra_class_mse, mse_floors


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def test_intra_class_weights_pairs_alike():
    inputs = torch.tensor([[0.0], [1.0], [0.0], [0.0], [0.5], [9.0]])
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    # Class 0: one pair, 1. Class 1: three pairs, 0, .25, .25. Class 2 has no pair.
    assert intra_class_mse(inputs, labels) == pytest.approx(1.5 / 4)
    assert intra_class_mse(inputs[[0, 2]], labels[[0, 2]]) is None


def test_floors_by_brute_force_for_two_classes():
    generator = torch.Generator().manual_seed(0)
    deleted, heldout, other = (torch.rand(n, 2, 3, 3, generator=generator) for n in (12, 9, 7))
    labels = torch.arange(12) % 2
    heldout_labels = torch.arange(9) % 2
    floors = mse_floors(deleted, labels, heldout, heldout_labels, other)
    d, h, o = (t.flatten(1).double().numpy() for t in (deleted, heldout, other))
    parts = [d[labels.numpy() == c] for c in (0, 1)]
    held = [h[heldout_labels.numpy() == c] for c in (0, 1)]
    pairs = np.concatenate([pdist(p, "sqeuclidean") for p in parts]) / 18
    mean_errors = np.concatenate([((p - p.mean(axis=0)) ** 2).mean(axis=1) for p in parts])
    best = np.concatenate([cdist(p, q, "sqeuclidean").min(axis=1) / 18 for p, q in zip(parts, held, strict=True)])
    assert floors["intra_class_mse"] == pytest.approx(pairs.mean())
    assert floors["class_mean_mse"] == pytest.approx(mean_errors.mean())
    assert floors["best_holdout_mse"] == pytest.approx(best.mean())
    assert floors["other_class_mse"] == pytest.approx(cdist(d, o, "sqeuclidean").mean() / 18)


def test_floors_of_real_digits_are_ordered(digits):
    images, labels = digits
    threes = images[labels == 3]
    deleted, heldout = threes[:90], threes[90:]
    floors = mse_floors(deleted, torch.full((90,), 3), heldout, other=images[labels != 3])
    assert floors["best_holdout_mse"] < floors["class_mean_mse"] < floors["intra_class_mse"] < floors["other_class_mse"]
    # A random image of the class errs by its own spread and another's: twice the class mean's, up to n / (n - 1).
    assert floors["intra_class_mse"] == pytest.approx(2 * floors["class_mean_mse"] * 90 / 89)
    diversity = Diversity()
    diversity.update(deleted)
    assert float(diversity.compute()) == pytest.approx(floors["intra_class_mse"])


def test_missing_images_give_none(digits):
    images, labels = digits
    floors = mse_floors(images[:5], labels[:5], images[:0], labels[:0], None)
    assert floors["best_holdout_mse"] is None
    assert floors["other_class_mse"] is None


def test_held_out_images_of_several_classes_need_labels(digits):
    images, labels = digits
    with pytest.raises(InputError, match="heldout_labels"):
        mse_floors(images[:5], labels[:5], images[5:9])
