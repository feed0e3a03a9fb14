import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.models.behaviour import Behaviour, ClassifierBehaviour


@pytest.fixture
def behaviour():
    return ClassifierBehaviour()


def test_classifier_behaviour_satisfies_the_protocol(behaviour):
    assert isinstance(behaviour, Behaviour)
    assert not isinstance(object(), Behaviour)


def test_slicing_keeps_order_and_tolerates_a_stop_past_the_end(behaviour):
    x = torch.arange(10.0).reshape(5, 2)
    assert behaviour.size(x) == 5
    torch.testing.assert_close(behaviour.select(x, 3, 9), x[3:])


@pytest.mark.parametrize(
    "wrong", [torch.zeros(4), torch.zeros(4, 2, dtype=torch.uint8), [[0.0, 1.0]]], ids=["flat", "bytes", "list"]
)
def test_inputs_that_are_no_float_batch_are_refused(behaviour, wrong):
    with pytest.raises(InputError, match="floating-point tensor"):
        behaviour.size(wrong)


def test_probabilities_losses_and_labels_agree_with_torch(behaviour):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    probabilities = behaviour.probabilities(logits)
    torch.testing.assert_close(probabilities, logits.exp() / logits.exp().sum(1, keepdim=True))
    labels = behaviour.pseudo_labels(probabilities)
    assert labels.tolist() == [row.index(max(row)) for row in logits.tolist()]
    torch.testing.assert_close(behaviour.losses(logits, labels), -probabilities.max(1).values.log())


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_inputs_follow_the_model_and_results_are_at_least_float32(behaviour, dtype, expected):
    model = nn.Linear(2, 3).to(dtype)
    x = torch.rand(5, 2)
    outputs = behaviour.forward(model, x)
    assert outputs.dtype == dtype
    assert behaviour.differentiable(model, x).dtype == dtype
    assert behaviour.probabilities(outputs).dtype == expected
    assert behaviour.losses(outputs, torch.zeros(5, dtype=torch.long)).dtype == expected


def test_the_representation_is_a_leaf_that_leaves_the_callers_tensor_alone(behaviour):
    model = nn.Linear(2, 3)
    x = torch.rand(5, 2)
    leaf = behaviour.differentiable(model, x)
    assert leaf.is_leaf
    assert leaf.requires_grad
    assert not x.requires_grad
    torch.testing.assert_close(behaviour.forward(model, x, leaf), model(x))


def test_inputs_made_in_inference_mode_can_be_differentiated(behaviour):
    model = nn.Linear(2, 3)
    with torch.inference_mode():
        x = torch.rand(5, 2)
    leaf = behaviour.differentiable(model, x)
    (gradient,) = torch.autograd.grad(behaviour.forward(model, x, leaf).sum(), leaf)
    torch.testing.assert_close(gradient, model.weight.detach().sum(0).expand(5, 2))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 1), r"returns shape \[5, 1\]"),
        (nn.Flatten(0), r"returns shape \[10\]"),
        (nn.Unflatten(1, (2, 1)), r"returns shape \[5, 2, 1\]"),
        (nn.LSTM(2, 3), "returns tuple"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(behaviour, model, message):
    with pytest.raises(InputError, match=message):
        behaviour.forward(model, torch.rand(5, 2))
