import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.attacks.base import NotApplicable
from retrace_pl.attacks.linear_head import HeadReader, find_head, head_matrix
from retrace_pl.models import ClassifierBehaviour, ResNet18, SmallCNN

BEHAVIOUR = ClassifierBehaviour()
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class HeadFirst(nn.Module):
    """Registers its head before its body, and returns log-probabilities."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 4)
        self.body = nn.Linear(64, 6)

    def forward(self, inputs):
        return functional.log_softmax(self.head(self.body(inputs.flatten(1)).relu()), dim=1)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (SmallCNN(1, 10, width=4), "head"),
        (ResNet18(1, 10), "head"),
        (HeadFirst(), "head"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3), nn.Identity()), "3"),
    ],
)
def test_the_head_is_the_layer_whose_output_is_the_models(model, name):
    assert find_head(model.eval(), BEHAVIOUR, IMAGES[:1]) == name
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_can_be_its_own_head():
    model = nn.Linear(8, 3)
    assert find_head(model, BEHAVIOUR, IMAGES.flatten(1)[:, :8]) == ""
    assert HeadReader(model, BEHAVIOUR, "").head is model


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 8), nn.Flatten()),  # reads a picture row by row, not one vector a record
    ],
)
def test_other_models_have_no_head(model):
    with pytest.raises(NotApplicable, match="does not end in a linear layer"):
        find_head(model, BEHAVIOUR, IMAGES)


def test_the_reader_returns_what_the_head_reads():
    model = SmallCNN(1, 10, width=4).eval()
    reader = HeadReader(model, BEHAVIOUR, "head")
    features, outputs = reader(IMAGES)
    assert torch.equal(features, model.features(IMAGES))
    assert torch.equal(outputs, model(IMAGES))
    assert not model.head._forward_pre_hooks
    in_parts, outputs_in_parts = reader.read(IMAGES, 2)
    assert in_parts.dtype == torch.float64
    assert not in_parts.requires_grad
    assert torch.allclose(in_parts.float(), features, atol=1e-6)
    assert torch.allclose(outputs_in_parts.float(), outputs, atol=1e-6)


def test_features_lead_back_to_the_inputs():
    inputs = IMAGES.clone().requires_grad_()
    features, _ = HeadReader(SmallCNN(1, 10, width=4).eval(), BEHAVIOUR, "head")(inputs * 1)
    features.sum().backward()
    assert bool(inputs.grad.any())


def test_a_reader_casts_to_the_models_type():
    features, _ = HeadReader(HeadFirst().double(), BEHAVIOUR, "head")(IMAGES)
    assert features.dtype == torch.float64


@pytest.mark.parametrize("bias", [True, False])
def test_the_matrix_maps_features_to_logits(bias):
    head = nn.Linear(5, 3, bias=bias)
    features = torch.randn(4, 5)
    rows = torch.cat([features, torch.ones(4, 1)], 1) if bias else features
    assert torch.allclose(rows.double() @ head_matrix(head), head(features).double(), atol=1e-6)
