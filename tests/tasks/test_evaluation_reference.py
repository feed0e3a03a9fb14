"""Reference: what candidates are compared with, its floors and how a data module becomes one."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError
from retrace_pl.metrics import ImageDomain, nearest_records
from retrace_pl.models import Classifier
from retrace_pl.tasks import Reference, evaluate_candidates, reconstruction_floors


class ByBrightness(Classifier):
    """Class = brightness decile; features = mean and spread of the pixels."""

    num_classes, num_features = 10, 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def features(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        return torch.stack([flat.mean(dim=1), flat.std(dim=1)], dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        centres = (torch.arange(10) + 0.5) / self.scale
        return -(self.features(inputs)[:, :1] - centres).abs()


def _constant(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 8, 8).clone()


@pytest.fixture
def reference() -> Reference:
    return Reference(
        deleted_inputs=_constant(0.32, 0.36, 0.38),
        deleted_labels=torch.tensor([3, 3, 3]),
        target_classes=(3,),
        num_classes=10,
        heldout_inputs=_constant(0.31, 0.34, 0.39, 0.42),
        other_inputs=_constant(0.9, 0.1),
    )


def test_floors_by_hand(reference):
    floors = reconstruction_floors(reference, ByBrightness())
    mean = (0.32 + 0.36 + 0.38) / 3
    assert floors == pytest.approx(
        {
            "intra_class_mse": (0.04**2 + 0.06**2 + 0.02**2) / 3,
            "class_mean_mse": sum((v - mean) ** 2 for v in (0.32, 0.36, 0.38)) / 3,
            "best_holdout_mse": (0.01**2 + 0.02**2 + 0.01**2) / 3,
            "other_class_mse": sum((v - w) ** 2 for v in (0.32, 0.36, 0.38) for w in (0.9, 0.1)) / 6,
            "deleted_diversity": (0.04**2 + 0.06**2 + 0.02**2) / 3,
            "heldout_sr_oracle": 0.75,
        },
        rel=1e-5,
    )


def test_floors_without_evaluator_or_images(reference):
    assert reconstruction_floors(reference)["heldout_sr_oracle"] is None
    alone = Reference(reference.deleted_inputs[:1], reference.deleted_labels[:1], (3,), 10)
    floors = reconstruction_floors(alone, ByBrightness())
    assert {key for key, value in floors.items() if value is None} == set(floors) - {"class_mean_mse"}
    every_class = replace(reference, target_classes=tuple(range(10)))
    assert reconstruction_floors(every_class, ByBrightness())["heldout_sr_oracle"] is None


def test_against_holdout_changes_the_records_and_nothing_else(reference):
    evaluator = ByBrightness().eval()
    control = replace(reference, against="holdout")
    candidates = reference.heldout_inputs[:2]
    deleted, heldout = (evaluate_candidates(candidates, r, evaluator, evaluator) for r in (reference, control))
    assert heldout["mse"] == 0.0
    assert deleted["mse"] == pytest.approx((0.01**2 + 0.02**2) / 2, rel=1e-4)
    assert heldout["sr_oracle"] == deleted["sr_oracle"]
    assert control.success_threshold == reference.success_threshold
    assert reconstruction_floors(control) == reconstruction_floors(reference)


def test_centre_falls_back_in_the_stated_order(reference):
    assert torch.equal(replace(reference, centre=_constant(0.7)[0]).mean_input, _constant(0.7)[0])
    torch.testing.assert_close(reference.mean_input, _constant(0.5)[0])
    torch.testing.assert_close(replace(reference, other_inputs=None).mean_input, reference.heldout_inputs.mean(dim=0))
    alone = replace(reference, other_inputs=None, heldout_inputs=reference.heldout_inputs[:0])
    torch.testing.assert_close(alone.mean_input, reference.deleted_inputs.mean(dim=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deleted_inputs": torch.zeros(0, 1, 8, 8)}, "at least one"),
        ({"deleted_labels": torch.tensor([3])}, "labels"),
        ({"heldout_inputs": None, "against": "holdout"}, "heldout_inputs"),
        ({"other_inputs": torch.zeros(2, 1, 9, 9)}, "other_inputs"),
        ({"target_classes": (10,)}, "target_classes"),
    ],
)
def test_unusable_references_are_refused(reference, change, message):
    with pytest.raises(InputError, match=message):
        replace(reference, **change)


@pytest.mark.parametrize("classes", [(3,), (3, 8)])
def test_from_a_data_module(classes):
    data = load_digits()
    images, labels = torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)
    train, test = slice(0, 900), slice(900, None)
    chosen = torch.isin(labels[train], torch.tensor(classes))
    splits = {
        "forget": SimpleNamespace(inputs=images[train][chosen], labels=labels[train][chosen]),
        "test": SimpleNamespace(inputs=images[test], labels=labels[test]),
    }
    module = SimpleNamespace(num_classes=10, split=splits.__getitem__, domain=ImageDomain())
    built = Reference.from_datamodule(module, max_other=100)
    assert built.target_classes == classes
    assert torch.equal(built.deleted_inputs, splits["forget"].inputs)
    held = torch.isin(labels[test], torch.tensor(classes))
    assert torch.equal(built.heldout_inputs, images[test][held])
    assert torch.equal(built.heldout_labels, labels[test][held])
    assert built.other_inputs.shape == (100, 1, 8, 8)
    # Every other-class image is a test image, and none is of a deleted class.
    nearest = nearest_records(built.other_inputs, images[test])
    assert float(nearest.mse.max()) == 0.0
    assert not torch.isin(labels[test][nearest.position], torch.tensor(classes)).any()
    torch.testing.assert_close(built.mean_input, images[test].mean(dim=0))
    again = Reference.from_datamodule(module, max_other=100)
    assert torch.equal(again.other_inputs, built.other_inputs)
    floors = reconstruction_floors(built)
    assert floors["best_holdout_mse"] < floors["class_mean_mse"] < floors["intra_class_mse"] < floors["other_class_mse"]


@pytest.mark.parametrize(
    ("deletion", "targets", "class_based"),
    [({"forget_class": 3}, (3,), True), ({"forget_fraction": 0.2}, tuple(range(10)), False)],
    ids=["class", "records"],
)
def test_from_the_digits_module(deletion, targets, class_based):
    module = UnlearningDataModule(DigitsSource(), image_size=16, channels=1, **deletion)
    module.setup("fit")
    built = Reference.from_datamodule(module)
    assert (built.target_classes, built.class_based) == (targets, class_based)
    assert len(built.deleted_inputs) == len(module.split("forget"))
    assert len(built.heldout_inputs) + len(built.other_inputs) == len(module.split("test"))
    # No held-out record is a deleted one, and with every class touched no image is of another class.
    assert float(nearest_records(built.heldout_inputs, built.deleted_inputs).mse.min()) > 0
    assert (reconstruction_floors(built)["other_class_mse"] is None) is not class_based
