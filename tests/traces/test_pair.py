import math
from collections import Counter

import pytest
import torch
from torch import nn

from retrace_pl.errors import AccessError, InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.traces import ModelPair


def count_passes(model, counts, name):
    """Count forward passes of `model` and backward passes that reach its last layer."""
    model.register_forward_hook(lambda *_: counts.update([f"{name}.forward"]))
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]

    def watch(_module, _inputs, output):
        if output.requires_grad:
            output.register_hook(lambda _: counts.update([f"{name}.backward"]))

    last.register_forward_hook(watch)


def test_outputs_losses_and_gradients_by_hand(linear):
    # logits+ = (x1, -x1), logits- = (x1 + x2, 0); at x = (1, 1): p+ = sigmoid(2), p- = sigmoid(2), y^ = 0 for both
    pair = ModelPair(linear([[1.0, 0.0], [-1.0, 0.0]]), linear([[1.0, 1.0], [0.0, 0.0]]), "white")
    x = torch.tensor([[1.0, 1.0], [-1.0, 3.0]])

    def sigmoid(value):
        return 1 / (1 + math.exp(-value))

    outputs = pair.outputs(x)
    torch.testing.assert_close(outputs.original[:, 0], torch.tensor([sigmoid(2), sigmoid(-2)]).double())
    torch.testing.assert_close(outputs.unlearned[:, 0], torch.tensor([sigmoid(2), sigmoid(2)]).double())
    # the second input is class 1 for the original, and that label is used for the unlearned model as well
    losses = pair.losses(x)
    torch.testing.assert_close(losses.original, torch.tensor([-math.log(sigmoid(2))] * 2).double())
    expected = torch.tensor([-math.log(sigmoid(2)), -math.log(sigmoid(-2))]).double()
    torch.testing.assert_close(losses.unlearned, expected)
    # d CE / dx = W^T (p - onehot)
    gradients = pair.input_gradients(x)
    low = 1 - sigmoid(2)
    expected_original = torch.tensor([[-2 * low, 0.0], [2 * low, 0.0]]).double()
    expected_unlearned = torch.tensor([[-low, -low], [sigmoid(2), sigmoid(2)]]).double()
    torch.testing.assert_close(gradients.original, expected_original)
    torch.testing.assert_close(gradients.unlearned, expected_unlearned)


def test_gradients_agree_with_finite_differences(models, inputs):
    first, second = (model.double() for model in models)
    pair = ModelPair(first, second, "white")
    x = inputs[:5].double()
    response = pair.respond(x)
    for model, gradients in zip((first, second), response.gradients, strict=True):
        for i in range(len(x)):
            for position in range(12):
                step = torch.zeros(12, dtype=torch.float64)
                step[position] = 1e-6
                step = step.reshape(3, 2, 2)
                with torch.no_grad():
                    logits = model(torch.stack((x[i] + step, x[i] - step)))
                    high, low = nn.functional.cross_entropy(logits, response.labels[i].expand(2), reduction="none")
                slope = (high - low).item() / 2e-6
                assert gradients[i].flatten()[position].item() == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize(
    ("access", "backward"), [("black", 0), ("gray", 0), ("white", 1)], ids=["black", "gray", "white"]
)
def test_one_forward_and_at_most_one_backward_per_model(models, inputs, access, backward):
    counts = Counter()
    for name, model in zip(("original", "unlearned"), models, strict=True):
        count_passes(model, counts, name)
    ModelPair(*models, access).respond(inputs)
    for name in ("original", "unlearned"):
        assert counts[f"{name}.forward"] == 1
        assert counts[f"{name}.backward"] == backward


def test_white_box_runs_no_backward_unless_the_gradient_is_asked_for(models, inputs):
    counts = Counter()
    count_passes(models[0], counts, "original")
    response = ModelPair(*models, "white").respond(inputs, ("prediction", "loss"))
    assert response.gradients is None
    assert counts == {"original.forward": 1}


def test_levels_are_enforced(models, inputs):
    black, gray = ModelPair(*models, "black"), ModelPair(*models, "gray")
    with pytest.raises(AccessError, match="loss signal needs access=gray"):
        black.losses(inputs)
    with pytest.raises(AccessError, match="gradient signal needs access=white"):
        black.input_gradients(inputs)
    with pytest.raises(AccessError, match="gradient signal needs access=white"):
        gray.input_gradients(inputs)
    with pytest.raises(AccessError):
        gray.respond(inputs, ("prediction", "gradient"))
    gray.losses(inputs)
    response = black.respond(inputs)
    assert response.losses is None
    assert response.gradients is None


def test_a_refused_call_runs_no_model(models, inputs):
    counts = Counter()
    count_passes(models[0], counts, "original")
    with pytest.raises(AccessError):
        ModelPair(*models, "black").losses(inputs)
    assert not counts


def test_models_are_frozen_and_in_eval_mode(inputs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    pair = ModelPair(model, model, "white")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = pair.respond(inputs), pair.respond(inputs)
    assert torch.equal(first.probabilities.original, second.probabilities.original)
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("which", ["whole", "part"])
def test_a_model_set_back_to_training_mode_is_noticed(models, inputs, which):
    pair = ModelPair(*models, "black")
    (models[1] if which == "whole" else models[1][1]).train()
    with pytest.raises(RunError, match="set back to training mode"):
        pair.outputs(inputs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("position", "name"), [(0, "original"), (1, "unlearned")])
@pytest.mark.parametrize("access", ["black", "white"])
def test_values_that_are_not_finite_name_the_model(models, inputs, value, position, name, access):
    models[position][3].bias.data[2] = value
    with pytest.raises(RunError, match=f"the {name} model returns NaN or infinite"):
        ModelPair(*models, access).respond(inputs)


def test_class_counts_must_match(mlp, inputs):
    for access in ("black", "white"):
        with pytest.raises(InputError, match=r"\[37, 4\], unlearned of shape \[37, 3\]; both must have"):
            ModelPair(mlp(1, 4), mlp(2, 3), access).respond(inputs)


def test_bad_inputs_and_settings_are_refused(models, inputs):
    with pytest.raises(InputError, match="batch is empty"):
        ModelPair(*models).outputs(inputs[:0])
    with pytest.raises(InputError, match="floating-point tensor"):
        ModelPair(*models).outputs(inputs.byte())
    with pytest.raises(InputError, match="access: 'grey'"):
        ModelPair(*models, access="grey")
    with pytest.raises(InputError, match="on one device, found cpu, meta"):
        ModelPair(models[0], models[1].to("meta"))


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x.detach())


def test_a_model_without_gradient_is_named():
    x = torch.rand(3, 2)
    with pytest.raises(RunError, match="the unlearned model has no gradient"):
        ModelPair(nn.Linear(2, 2), Detached(2, 2), "white").respond(x)
    ModelPair(nn.Linear(2, 2), Detached(2, 2), "gray").respond(x)


@pytest.mark.parametrize("access", ["black", "gray", "white"])
def test_results_are_ordinary_tensors_whatever_the_callers_mode(models, inputs, access):
    pair = ModelPair(*models, access)
    plain = pair.respond(inputs).probabilities.original
    assert not plain.is_inference()
    assert not plain.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(pair.respond(inputs).probabilities.original, plain)
    with torch.no_grad():
        torch.testing.assert_close(pair.respond(inputs.clone().requires_grad_()).probabilities.original, plain)


def test_device_of_a_pair_without_tensors_is_the_cpu():
    assert ModelPair(nn.Flatten(), nn.Flatten()).device == torch.device("cpu")


@pytest.mark.parametrize("channels", [1, 3])
def test_memory_formats_agree(channels):
    torch.manual_seed(0)
    first, second = SmallCNN(channels, 5, width=8), SmallCNN(channels, 5, width=8)
    for module in (*first.modules(), *second.modules()):
        if isinstance(module, nn.BatchNorm2d):  # as after training: running statistics that change something
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    x = torch.rand(20, channels, 16, 16)
    plain = ModelPair(first, second, "white").respond(x)
    pair = ModelPair(first, second, "white", memory_format="channels_last")
    other = pair.respond(x)
    for mine, theirs in ((other.probabilities, plain.probabilities), (other.losses, plain.losses)):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(other.gradients, plain.gradients, rtol=1e-3, atol=1e-6)
    assert (plain.probabilities.original - plain.probabilities.unlearned).abs().max() > 1e-3
    # what is handed out, stored or matched is what came in
    assert pair.networks() == (first, second)
    assert all(weight.is_contiguous() for weight in first.parameters())


def test_channels_last_runs_one_copy_of_an_identical_pair_and_none_without_convolutions(models):
    network = SmallCNN(1, 3, width=4)
    counts = Counter()
    network.register_forward_hook(lambda *_: counts.update(["called"]))  # copied along with the model
    outputs = ModelPair(network, network, memory_format="channels_last").outputs(torch.rand(4, 1, 8, 8))
    assert torch.equal(outputs.original, outputs.unlearned)
    assert counts["called"] == 2
    calls = Counter()
    count_passes(models[0], calls, "original")
    ModelPair(*models, memory_format="channels_last").outputs(torch.rand(4, 3, 2, 2))
    assert calls["original.forward"] == 1


def test_an_unknown_memory_format_is_named(models):
    with pytest.raises(InputError, match="memory_format: 'nhwc' is unknown; choose one of contiguous, channels_last"):
        ModelPair(*models, memory_format="nhwc")
