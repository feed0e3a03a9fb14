"""GUARD's weights against explicit per-record gradients, and the wrapper's manners."""

import copy
import math

import jsonargparse
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.unlearning import (
    Delete,
    GradientAscent,
    Guard,
    Identity,
    NegativeGradient,
    RetainFineTune,
    UnlearningMethod,
)


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3))
    model[2].running_mean.uniform_(-0.5, 0.5)
    return model


def batches(seed, counts, classes=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(n, 1, 4, 4, generator=generator), torch.randint(classes, (n,), generator=generator)) for n in counts
    ]


RETAIN, FORGET = batches(1, (5, 3)), batches(2, (4, 4, 2))


def explicit_alignments(model, retain, forget):
    """One backward pass per record, in eval mode."""
    model = copy.deepcopy(model).eval()

    def gradient(inputs, labels):
        loss = functional.cross_entropy(model(inputs), labels)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    inputs, labels = (torch.cat([pair[k] for pair in retain]) for k in (0, 1))
    mean = gradient(inputs, labels)
    return torch.stack([gradient(x[None], y[None]) @ mean for batch in forget for x, y in zip(*batch, strict=True)])


@pytest.mark.parametrize("make", [network, lambda: SmallCNN(1, 3, width=2)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_weights_follow_the_rule_on_explicit_gradients(make, temperature):
    model = make()
    size = 16 if isinstance(model, SmallCNN) else 4
    retain, forget = ([(functional.interpolate(x, size=size), y) for x, y in stream] for stream in (RETAIN, FORGET))
    a = explicit_alignments(model, retain, forget).double()
    w = torch.exp(-a / (temperature * a.std(correction=0)))
    expected = (len(a) * w / w.sum()).float()
    guard = Guard(temperature=temperature)
    guard.prepare(model)
    guard.edit(model, retain, forget)
    actual = torch.cat([guard.weights(batch) for batch in forget])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5)
    assert float(actual.mean()) == pytest.approx(1.0, rel=1e-4)
    assert float(actual.max() - actual.min()) > 0.1, "the records differ"
    assert int(actual.argmax()) == int(a.argmin()), "what supports the retained records least is forgotten first"


def test_weights_stay_those_of_the_original_model_while_it_moves():
    model = network()
    guard = Guard()
    guard.prepare(model)
    guard.edit(model, RETAIN, FORGET)
    before = guard.weights(FORGET[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-2)
    model.train()
    torch.testing.assert_close(guard.weights(FORGET[0]), before, rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 1e9])
def test_the_inner_step_descends_the_weighted_loss(temperature):
    model, retain, forget = network().eval(), RETAIN[0], FORGET[0]
    guard = Guard(NegativeGradient(lr=0.1, momentum=0.0, a=0.6), temperature=temperature)
    guard.prepare(model)
    guard.edit(model, RETAIN, FORGET)
    w = guard.weights(forget)
    reference = copy.deepcopy(model)
    losses = functional.cross_entropy(reference(forget[0]), forget[1], reduction="none")
    loss = 0.6 * functional.cross_entropy(reference(retain[0]), retain[1]) - 0.4 * (w * losses).mean()
    loss.backward()
    result = guard.unlearn_step(model, retain, forget, guard.configure_optimizer(model.parameters()), 0, 0)
    torch.testing.assert_close(result["loss"], loss.detach())
    for moved, was in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(moved.detach(), was.detach() - 0.1 * was.grad)
    if temperature == 1e9:
        torch.testing.assert_close(w, torch.ones(4))


def test_equal_records_get_equal_weights():
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    forget = [(image.expand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64))]
    guard = Guard()
    guard.prepare(network())
    guard.edit(network(), RETAIN, forget)
    torch.testing.assert_close(guard.weights(forget[0]), torch.ones(3))


def test_a_resumed_run_has_the_same_weights_and_the_inner_state(tmp_path):
    model = network()
    guard = Guard(GradientAscent(window=2, lr=1e-3))
    guard.prepare(model)
    guard.edit(model, RETAIN, FORGET)
    guard.unlearn_step(model, None, FORGET[0], guard.configure_optimizer(model.parameters()), 0, 0)
    torch.save(guard.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Guard(GradientAscent(window=2, lr=1e-3))
    resumed.prepare(network())
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed.weights(FORGET[1]), guard.weights(FORGET[1]), rtol=0, atol=0)
    assert resumed.inner.state_dict() == guard.inner.state_dict() != {"recent": []}


def test_settings_are_those_of_the_inner_method_unless_given():
    inner = GradientAscent(epochs=7, lr=0.2, batch_size=9, optimizer="sgd", strength=2.0)
    guard = Guard(inner)
    assert (guard.epochs, guard.lr, guard.batch_size, guard.optimizer_name) == (7, 0.2, 9, "sgd")
    assert (guard.inner.strength, guard.batch_norm, guard.strength_scales_lr) == (2.0, "freeze", True)
    assert guard.needs == {"retain", "forget", "cache"}
    assert guard.name == "Guard(GradientAscent)"
    assert guard.configure_optimizer(network().parameters()).param_groups[0]["lr"] == pytest.approx(0.4)
    replaced = Guard(GradientAscent(strength=2.0), epochs=3, lr=0.5, strength=3.0)
    assert (replaced.strength, replaced.inner.epochs, replaced.inner.lr, replaced.inner.strength) == (3.0, 3, 0.5, 6.0)
    assert replaced.configure_optimizer(network().parameters()).param_groups[0]["lr"] == pytest.approx(3.0)
    assert type(Guard().inner) is NegativeGradient


def test_a_driver_may_impose_its_recipe_in_the_constructor_or_later():
    guard = Guard(GradientAscent(), epochs=2, lr=0.3, batch_size=8, optimizer="sgd", weight_decay=0.1)
    group = guard.configure_optimizer(network().parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.1, 0.0)
    assert guard.batch_size == guard.inner.batch_size == 8
    guard.lr, guard.optimizer_name, guard.epochs = 0.7, "adam", 4
    optimizer = guard.configure_optimizer(network().parameters())
    assert (type(optimizer), optimizer.param_groups[0]["lr"]) == (torch.optim.Adam, 0.7)
    assert guard.inner.epochs == 4


def test_hooks_reach_the_inner_method():
    calls = []

    class Watched(Delete):
        def prepare(self, model):
            calls.append("prepare")
            super().prepare(model)

        def edit(self, model, retain_loader, forget_loader):
            calls.append("edit")

        def set_mode(self, model):
            calls.append("set_mode")

        def finish(self, model):
            calls.append("finish")

        def bind_backward(self, backward):
            calls.append("bind")
            super().bind_backward(backward)

    guard, model, seen = Guard(Watched()), network(), []
    guard.bind_backward(lambda loss: (seen.append(1), loss.backward()))
    guard.prepare(model)
    guard.edit(model, RETAIN, FORGET)
    guard.set_mode(model)
    guard.unlearn_step(model, None, FORGET[0], guard.configure_optimizer(model.parameters()), 0, 0)
    guard.finish(model)
    assert calls == ["bind", "prepare", "edit", "set_mode", "finish"]
    assert seen == [1]


@pytest.mark.parametrize("inner", [Identity(), RetainFineTune(), Guard()])
def test_methods_without_a_forget_loss_are_refused(inner):
    with pytest.raises(InputError, match=r"Guard\.inner"):
        Guard(inner)


def test_errors_are_named():
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match=r"Guard\.temperature"):
            Guard(temperature=temperature)
    with pytest.raises(InputError, match=r"Guard\.lr"):
        Guard(lr=0.0)
    guard = Guard()
    guard.prepare(network())
    with pytest.raises(RunError, match="call edit"):
        guard.weights(FORGET[0])
    with pytest.raises(InputError, match="no retained record"):
        guard.edit(network(), [], FORGET)
    with pytest.raises(InputError, match="no record to forget"):
        guard.edit(network(), RETAIN, [])
    broken = network()
    with torch.no_grad():
        broken[1].weight.fill_(float("nan"))
    guard.prepare(broken)
    with pytest.raises(RunError, match="not finite"):
        guard.edit(broken, RETAIN, FORGET)


def test_yaml_builds_it_with_a_nested_inner_method():
    text = """
    class_path: retrace_pl.unlearning.Guard
    init_args:
      temperature: 2.5
      lr: 0.02
      inner:
        class_path: retrace_pl.unlearning.NegativeGradient
        init_args: {a: 0.8, epochs: 4}
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(UnlearningMethod, "unlearning")
    guard = parser.instantiate(parser.parse_object({"unlearning": yaml.safe_load(text)})).unlearning
    assert (type(guard), type(guard.inner)) == (Guard, NegativeGradient)
    assert (guard.temperature, guard.inner.a, guard.epochs, guard.inner.lr) == (2.5, 0.8, 4, 0.02)
