"""unlearning_quality on the bundled digits, against counts and scikit-learn's AUC."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError, RunError
from retrace_pl.tasks import unlearning_quality

SETTINGS = {"image_size": 16, "channels": 1, "train_size": 300, "test_size": 200}


class Pixels(nn.Module):
    """Logits that are a fixed linear function of the pixels: many are right by chance, confidences vary."""

    def __init__(self, scale=3.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(256, 10, generator=generator) * scale)
        self.dropout = nn.Dropout(0.5)

    def forward(self, inputs):
        return self.dropout(inputs.flatten(1) @ self.weight)


class Constant(nn.Module):
    def __init__(self, label=None, value=0.0):
        super().__init__()
        self.label, self.value = label, value

    def forward(self, inputs):
        logits = torch.full((len(inputs), 10), self.value)
        if self.label is not None:
            logits[:, self.label] = 5.0
        return logits


@pytest.fixture(scope="module")
def by_class():
    data = UnlearningDataModule(DigitsSource(), forget_class=[3, 7], **SETTINGS)
    data.setup()
    return data


@pytest.fixture(scope="module")
def by_record():
    data = UnlearningDataModule(DigitsSource(), forget_fraction=0.1, **SETTINGS)
    data.setup()
    return data


def predictions(model, records):
    logits = (records.inputs.flatten(1) @ model.weight.detach()).double()
    return logits.argmax(1) == records.labels, logits.softmax(1).amax(1)


def test_class_deletion_against_counts_and_sklearn(by_class):
    model = Pixels()
    right, confidence = predictions(model, by_class.split("test"))
    _, members = predictions(model, by_class.split("forget"))
    gone = torch.isin(by_class.split("test").labels, torch.tensor([3, 7]))
    truth = [1] * len(members) + [0] * int(gone.sum())
    assert unlearning_quality(model, by_class, device="cpu") == {
        "retain_acc": pytest.approx(int(right[~gone].sum()) / int((~gone).sum())),
        "forget_acc": pytest.approx(int(right[gone].sum()) / int(gone.sum())),
        "mia_auc": pytest.approx(roc_auc_score(truth, torch.cat([members, confidence[gone]]))),
        "test_acc": pytest.approx(int(right.sum()) / len(right)),
    }


def test_record_deletion_measures_the_records_themselves(by_record):
    model = Pixels()
    right, confidence = predictions(model, by_record.split("test"))
    known, members = predictions(model, by_record.split("forget"))
    classes = torch.tensor(by_record.deleted_classes)
    others = confidence[torch.isin(by_record.split("test").labels, classes)]
    result = unlearning_quality(model, by_record, device="cpu")
    assert result["forget_acc"] == pytest.approx(int(known.sum()) / len(known))
    assert result["retain_acc"] == result["test_acc"] == pytest.approx(int(right.sum()) / len(right))
    truth = [1] * len(members) + [0] * len(others)
    assert result["mia_auc"] == pytest.approx(roc_auc_score(truth, torch.cat([members, others])))


def test_equal_confidences_leak_nothing(by_class):
    result = unlearning_quality(Constant(label=3), by_class)
    test = by_class.split("test").labels
    assert result["mia_auc"] == 0.5
    assert result["retain_acc"] == 0
    assert result["forget_acc"] == pytest.approx(int((test == 3).sum()) / int(((test == 3) | (test == 7)).sum()))


def test_the_batch_size_does_not_matter_and_the_modes_are_restored(by_class):
    model = Pixels()
    model.train()
    model.dropout.eval()
    first = unlearning_quality(model, by_class, batch_size=7)
    assert first == unlearning_quality(model, by_class, batch_size=1000)
    assert model.training
    assert not model.dropout.training
    assert model.weight.grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(by_class, value):
    with pytest.raises(RunError, match="Constant returns outputs that are not finite"):
        unlearning_quality(Constant(value=value), by_class)


def test_a_test_split_without_the_deleted_class_is_refused(by_class, monkeypatch):
    split = by_class.split
    without = split("test").of_classes([0, 1])
    monkeypatch.setattr(by_class, "split", lambda name: without if name == "test" else split(name))
    with pytest.raises(InputError, match="no image of the deleted classes"):
        unlearning_quality(Pixels(), by_class)
