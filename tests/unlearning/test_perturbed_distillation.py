"""Our rule against its equations: the perturbation, the masked teacher, the losses and the learning rate."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError
from retrace_pl.unlearning import PerturbedDistillation

LR = 0.1
PLAIN = {"optimizer": "sgd", "momentum": 0.0, "lr": LR, "lr_factor": 1.0, "strength": 0.0}
"""One step of SGD from the original weights, so that the loss alone decides."""


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def batches():
    torch.manual_seed(1)
    retain = torch.randn(6, 4), torch.tensor([0, 2, 0, 2, 2, 0])
    return retain, (torch.randn(5, 4), torch.ones(5, dtype=torch.int64))


def masked(logits, temperature=1.0):
    """The softmax without class 1, written out."""
    p = (logits.detach() / temperature).exp() * torch.tensor([1.0, 0.0, 1.0])
    return p / p.sum(1, keepdim=True)


def divergence(target, logits):
    terms = torch.where(target > 0, target * (target.clip(1e-30).log() - logits.log_softmax(1)), 0.0)
    return terms.sum(1).mean()


def step_once(method, model, step=0, epoch=0, optimizer=None):
    retain, forget = batches()
    optimizer = optimizer or method.configure_optimizer(model.parameters())
    return method.unlearn_step(model, retain, forget, optimizer, step, epoch)


@pytest.mark.parametrize("cross_entropy", [0.0, 0.7])
@pytest.mark.parametrize("forget_weight", [0.0, 0.5])
def test_the_step_descends_the_three_losses(cross_entropy, forget_weight):
    model, teacher = linear(0), linear(2)
    settings = {"cross_entropy": cross_entropy, "distillation": 1.3, "temperature": 2.0, "forget_weight": forget_weight}
    method = PerturbedDistillation(**settings, **PLAIN)
    method.prepare(teacher)
    (inputs, labels), (forgotten, _) = batches()
    expected = copy.deepcopy(model)
    logits = expected(inputs)
    loss = 1.3 * 4 * divergence(masked(teacher(inputs), 2.0), logits / 2)
    loss = loss + cross_entropy * functional.cross_entropy(logits, labels)
    loss = loss + forget_weight * divergence(masked(teacher(forgotten)), expected(forgotten))
    loss.backward()
    result = step_once(method, model)
    torch.testing.assert_close(result["loss"], loss.detach())
    torch.testing.assert_close(model.weight.detach(), expected.weight.detach() - LR * expected.weight.grad)
    torch.testing.assert_close(model.bias.detach(), expected.bias.detach() - LR * expected.bias.grad)


def test_without_a_mask_the_teacher_keeps_the_deleted_class():
    model, teacher = linear(0), linear(2)
    method = PerturbedDistillation(mask=False, temperature=1.0, cross_entropy=0.0, **PLAIN)
    method.prepare(teacher)
    (inputs, _), _ = batches()
    expected = divergence(teacher(inputs).detach().softmax(1), model(inputs).detach())
    torch.testing.assert_close(step_once(method, model)["loss"], expected)


def test_classes_that_retained_records_have_too_are_not_masked():
    """Single records are deleted: what is retained of their class must stay."""
    model, teacher = linear(0), linear(2)
    method = PerturbedDistillation(temperature=1.0, cross_entropy=0.0, **PLAIN)
    method.prepare(teacher)
    (inputs, labels), forget = batches()
    optimizer = method.configure_optimizer(model.parameters())
    method.unlearn_step(model, (inputs, torch.ones_like(labels)), forget, optimizer, 0, 0)
    expected = divergence(teacher(inputs).detach().softmax(1), model(inputs).detach())
    torch.testing.assert_close(step_once(method, model, step=1, optimizer=optimizer)["loss"], expected)


@pytest.mark.parametrize(("strength", "last"), [(0.0, 1.0), (0.5, 0.7), (1.0, 0.4), (2.0, 0.0)])
def test_the_perturbation_grows_with_depth_and_strength(strength, last):
    """Cosines as set, sizes as before, and biases untouched; a learning rate near 0 leaves only the perturbation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 200))
    before = copy.deepcopy(model)
    settings = {"lr": 1e-12, "keep_first": 1.0, "keep_last": 0.4, "strength": strength}
    method = PerturbedDistillation(**settings)
    inputs, labels = torch.randn(4, 200), torch.tensor([0, 2, 3, 4])
    optimizer = method.configure_optimizer(model.parameters())
    method.unlearn_step(model, (inputs, labels), (inputs, torch.ones_like(labels)), optimizer, 0, 0)
    expected = [1.0, (1 + last) / 2 if strength < 2 else 0.4, last]
    assert method.cosines(3) == pytest.approx(expected)
    for old, new, cosine in zip(before[::2], model[::2], expected, strict=True):
        found = functional.cosine_similarity(old.weight.detach().flatten(), new.weight.detach().flatten(), dim=0)
        assert float(found) == pytest.approx(cosine, abs=0.02)
        assert float((new.weight.norm() / old.weight.norm()).detach()) == pytest.approx(1.0, abs=0.02)
        torch.testing.assert_close(new.bias, old.bias, atol=1e-9, rtol=0)


def test_only_the_first_step_perturbs():
    model = linear()
    method = PerturbedDistillation(lr=1e-12)
    method.prepare(model)
    optimizer = method.configure_optimizer(model.parameters())
    step_once(method, model, 0, optimizer=optimizer)
    after = model.weight.detach().clone()
    assert not torch.allclose(after, linear().weight, atol=1e-3)
    step_once(method, model, 1, optimizer=optimizer)
    torch.testing.assert_close(model.weight.detach(), after, atol=1e-9, rtol=0)


@pytest.mark.parametrize("anneal", [True, False])
def test_the_rate_falls_along_a_cosine_from_the_second_epoch_on(anneal):
    model = linear()
    method = PerturbedDistillation(epochs=4, lr_factor=2.0, anneal=anneal)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rates = []
    for step in range(20):
        step_once(method, model, step, step // 5, optimizer)
        rates.append(optimizer.param_groups[0]["lr"])
    cosine = [0.01 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert rates == pytest.approx([0.02] * 5 + cosine[5:] if anneal else [0.02] * 20)


def test_a_resumed_run_goes_on_as_if_nothing_had_happened():
    def run(interrupted):
        model = linear()
        original = copy.deepcopy(model)
        method = PerturbedDistillation(epochs=4)
        method.prepare(original)
        torch.manual_seed(5)
        optimizer = method.configure_optimizer(model.parameters())
        for step in range(8):
            if interrupted and step == 5:
                state = method.state_dict()
                method = PerturbedDistillation(epochs=4)
                method.prepare(original)
                method.load_state_dict(state)
            step_once(method, model, step, step // 2, optimizer)
        return model.weight.detach()

    torch.testing.assert_close(run(True), run(False), atol=0, rtol=0)


def test_the_step_alone_is_enough():
    """MLS-Bench calls nothing else; the original is what the model is at step 0."""
    model = linear()
    method = PerturbedDistillation(strength=0.0, cross_entropy=0.0, temperature=1.0)
    (inputs, _), _ = batches()
    expected = divergence(masked(model(inputs)), model(inputs).detach())
    torch.testing.assert_close(step_once(method, model)["loss"], expected)


def test_many_steps_take_the_deleted_class_away():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    method = PerturbedDistillation(epochs=10, lr=0.01)
    optimizer = method.configure_optimizer(model.parameters())
    for step in range(100):
        step_once(method, model, step, step // 10, optimizer)
    (inputs, labels), (forgotten, _) = batches()
    assert bool((model(inputs).argmax(1) == labels).all())
    assert not bool((model(forgotten).argmax(1) == 1).any())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"keep_first": 1.1}, "keep_first"),
        ({"keep_last": -0.1}, "keep_last"),
        ({"temperature": 0.0}, "temperature"),
        ({"lr_factor": float("inf")}, "lr_factor"),
        ({"distillation": -1.0}, "distillation"),
        ({"forget_weight": -1.0}, "forget_weight"),
        ({"distillation": 0.0, "cross_entropy": 0.0}, "both 0"),
        ({"scheduler": lambda optimizer: None}, "scheduler"),
    ],
)
def test_settings_out_of_range_are_refused(settings, field):
    with pytest.raises(InputError, match=field):
        PerturbedDistillation(**settings)
