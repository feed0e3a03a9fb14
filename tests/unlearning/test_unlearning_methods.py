"""Every update rule against the equation in its docstring, on a linear model small enough to differentiate by hand."""

import jsonargparse
import pytest
import torch
from torch import nn

import retrace_pl.unlearning as zoo
from retrace_pl.errors import InputError
from retrace_pl.unlearning import (
    GradientAscent,
    Identity,
    NegativeGradient,
    RetainFineTune,
    Retrain,
    UnlearningMethod,
    as_method,
)

ALL = [Retrain, RetainFineTune, GradientAscent, NegativeGradient, Identity]
LR = 0.3


def batch(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def linear(seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def gradient(weight, bias, inputs, labels):
    """The gradient of the mean cross-entropy of a linear model, written out: (p - onehot)^T x / n."""
    logits = inputs @ weight.T + bias
    error = (logits.softmax(1) - torch.eye(3)[labels]) / len(labels)
    return error.T @ inputs, error.sum(0)


def mean_loss(weight, bias, inputs, labels):
    return -(inputs @ weight.T + bias).log_softmax(1)[torch.arange(len(labels)), labels].mean()


def step(method, model, retain=None, forget=None, index=0):
    method.prepare(model)
    return method.unlearn_step(model, retain, forget, method.configure_optimizer(model.parameters()), index, 0)


def check(model, weight, bias):
    torch.testing.assert_close(model.weight.detach(), weight)
    torch.testing.assert_close(model.bias.detach(), bias)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_retain_finetune_descends_the_retain_loss(strength):
    model, (inputs, labels) = linear(), batch(1)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    dw, db = gradient(weight, bias, inputs, labels)
    result = step(RetainFineTune(lr=LR, strength=strength), model, retain=(inputs, labels))
    check(model, weight - strength * LR * dw, bias - strength * LR * db)
    torch.testing.assert_close(result["loss"], mean_loss(weight, bias, inputs, labels))


@pytest.mark.parametrize("clip_norm", [0.1, 100.0])
def test_gradient_ascent_ascends_the_forget_loss_with_a_clipped_norm(clip_norm):
    model, (inputs, labels) = linear(), batch(2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    dw, db = gradient(weight, bias, inputs, labels)
    norm = torch.sqrt(dw.square().sum() + db.square().sum())
    scale = min(1.0, clip_norm / float(norm))
    assert (scale == 1.0) == (clip_norm == 100.0)
    result = step(GradientAscent(lr=LR, clip_norm=clip_norm, optimizer="sgd"), model, forget=(inputs, labels))
    torch.testing.assert_close(model.weight.detach(), weight + LR * scale * dw, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.bias.detach(), bias + LR * scale * db, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(result["loss"], -mean_loss(weight, bias, inputs, labels))


@pytest.mark.parametrize(
    ("settings", "retain_weight", "forget_weight"),
    [
        ({}, 0.95, -0.05),
        ({"a": 0.7}, 0.7, -0.3),
        ({"a": 0.7, "strength": 2.0}, 0.7, -0.6),
        ({"form": "mls_bench"}, 1.0, -0.5),
        ({"form": "mls_bench", "strength": 0.0}, 1.0, 0.0),
    ],
)
def test_negative_gradient_weighs_the_two_losses(settings, retain_weight, forget_weight):
    model, retain, forget = linear(), batch(3), batch(4)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    rw, rb = gradient(weight, bias, *retain)
    fw, fb = gradient(weight, bias, *forget)
    result = step(NegativeGradient(lr=LR, **settings), model, retain, forget)
    check(
        model,
        weight - LR * (retain_weight * rw + forget_weight * fw),
        bias - LR * (retain_weight * rb + forget_weight * fb),
    )
    expected = retain_weight * mean_loss(weight, bias, *retain) + forget_weight * mean_loss(weight, bias, *forget)
    torch.testing.assert_close(result["loss"], expected)


def test_retrain_starts_from_weights_that_know_nothing_of_the_original():
    retain = batch(5)
    first, second, other_seed = linear(0), linear(1), linear(0)
    step(Retrain(lr=LR), first, retain)
    step(Retrain(lr=LR), second, retain)
    step(Retrain(lr=LR, seed=1), other_seed, retain)
    torch.testing.assert_close(first.weight, second.weight)
    assert not torch.allclose(first.weight, other_seed.weight)


def test_retrain_leaves_the_global_generator_alone_and_descends():
    model, retain = linear(), batch(5)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    method = Retrain(lr=LR)
    method.prepare(model)
    assert torch.equal(torch.rand(1), expected)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    dw, db = gradient(weight, bias, *retain)
    method.unlearn_step(model, retain, None, method.configure_optimizer(model.parameters()), 0, 0)
    check(model, weight - LR * dw, bias - LR * db)


def test_retrain_refuses_parameters_it_cannot_reinitialise():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    with pytest.raises(InputError, match="cannot re-initialise the model"):
        Retrain().prepare(Scaled())


def test_identity_changes_nothing_and_stops():
    model = linear()
    weight = model.weight.detach().clone()
    assert step(Identity(), model)["stop"] is True
    torch.testing.assert_close(model.weight.detach(), weight, rtol=0, atol=0)
    assert Identity().epochs == 0


def test_gradient_ascent_stops_at_the_accuracy_of_the_latest_batches():
    """Batches with 4, 2, 0 and 0 of 4 right: the mean of the latest two is 1, .75, .25 and 0."""
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))

    def forget(right):
        labels = torch.tensor([0, 1, 2, 0])
        logits = torch.eye(3)[labels] * 5
        logits[right:] = logits[right:].roll(1, dims=1)
        return logits, labels

    method = GradientAscent(target_accuracy=0.25, window=2, lr=1e-9)
    optimizer = method.configure_optimizer(model.parameters())
    results = [method.unlearn_step(model, None, forget(right), optimizer, 0, 0) for right in (4, 2, 0)]
    assert [result["forget_batch_acc"] for result in results] == [1.0, 0.75, 0.25]
    assert [result["stop"] for result in results] == [False, False, True]
    resumed = GradientAscent(target_accuracy=0.25, window=2)
    resumed.load_state_dict(method.state_dict())
    assert resumed.unlearn_step(model, None, forget(0), optimizer, 3, 0)["forget_batch_acc"] == 0.0
    one = GradientAscent(target_accuracy=0.25, window=2).unlearn_step(model, None, forget(0), optimizer, 0, 0)
    assert one["stop"] is False, "one batch is less than the window"


def test_prepare_forgets_the_accuracies_of_an_earlier_run():
    method = GradientAscent(window=1)
    step(method, linear(), forget=batch(2))
    method.prepare(linear())
    assert method.state_dict() == {"recent": []}


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        (Retrain, {"retain"}),
        (RetainFineTune, {"retain"}),
        (GradientAscent, {"forget"}),
        (NegativeGradient, {"retain", "forget"}),
        (Identity, set()),
    ],
)
def test_methods_declare_what_they_need_and_read_nothing_else(method, needs):
    assert method.needs == needs
    streams = {"retain": batch(1), "forget": batch(2)}
    step(method(), linear(), *[streams[name] if name in needs else None for name in ("retain", "forget")])


def test_only_retrain_is_from_scratch():
    assert [method for method in ALL if method.from_scratch] == [Retrain]


@pytest.mark.parametrize("method", ALL)
def test_every_method_is_exported_and_documented(method):
    assert method.__name__ in zoo.__all__
    text = method.__doc__
    first = text.strip().splitlines()[0]
    assert first.endswith(".")
    for word in ("Rule:", "Need", "Source:", "Args:"):
        assert word in text, f"{method.__name__} does not say {word}"


@pytest.mark.parametrize(
    ("batch_norm", "moves"),
    [("update", True), ("freeze", False)],
)
def test_batch_norm_statistics_follow_the_setting(batch_norm, moves):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    method = RetainFineTune(batch_norm=batch_norm)
    model.eval()
    method.set_mode(model)
    assert model.training
    assert model[1].training
    before = model[0].running_mean.clone()
    weight = model[0].weight.detach().clone()
    step(method, model, batch(1))
    assert torch.equal(model[0].running_mean, before) is not moves
    assert not torch.equal(model[0].weight, weight), "its weights learn in both modes"


def test_the_method_whose_batches_are_forget_records_alone_keeps_the_statistics_by_default():
    assert [method().batch_norm for method in ALL] == ["update", "update", "freeze", "update", "update"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RetainFineTune(lr=0), "RetainFineTune.lr"),
        (lambda: RetainFineTune(lr=float("nan")), "RetainFineTune.lr"),
        (lambda: RetainFineTune(epochs=-1), "RetainFineTune.epochs"),
        (lambda: RetainFineTune(batch_size=0), "RetainFineTune.batch_size"),
        (lambda: RetainFineTune(strength=-1), "RetainFineTune.strength"),
        (lambda: RetainFineTune(optimizer="lion"), "sgd, adam, adamw"),
        (lambda: RetainFineTune(batch_norm="off"), "update, freeze"),
        (lambda: NegativeGradient(a=1.5), "NegativeGradient.a"),
        (lambda: NegativeGradient(form="other"), "NegativeGradient.form"),
        (lambda: GradientAscent(clip_norm=0), "GradientAscent.clip_norm"),
        (lambda: GradientAscent(target_accuracy=2), "GradientAscent.target_accuracy"),
        (lambda: GradientAscent(window=0), "GradientAscent.window"),
    ],
)
def test_settings_out_of_range_are_named(make, named):
    with pytest.raises(InputError, match=named):
        make()


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers_take_the_settings(name, kind):
    method = NegativeGradient(optimizer=name, lr=0.2, weight_decay=0.01, strength=3.0)
    optimizer = method.configure_optimizer(linear().parameters())
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.2, "strength multiplies the forget term here, not the learning rate"
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    scaled = GradientAscent(optimizer=name, lr=0.2, strength=3.0).configure_optimizer(linear().parameters())
    assert scaled.param_groups[0]["lr"] == pytest.approx(0.6)


def test_the_command_line_reaches_inherited_settings():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(UnlearningMethod, "unlearning")
    parsed = parser.parse_args(
        ["--unlearning=retrace_pl.unlearning.NegativeGradient", "--unlearning.momentum=0.5", "--unlearning.a=0.8"]
    )
    method = parser.instantiate(parsed).unlearning
    assert (type(method), method.momentum, method.a, method.batch_norm) == (NegativeGradient, 0.5, 0.8, "update")


def test_backward_goes_where_it_is_bound():
    method, seen = RetainFineTune(), []
    method.bind_backward(lambda loss: (seen.append(loss.item()), loss.backward()))
    model = linear()
    result = step(method, model, batch(1))
    assert seen == [pytest.approx(float(result["loss"]))]
    method.bind_backward(None)
    step(method, model, batch(1))
    assert len(seen) == 1


class Plain:
    """What a user's file holds: no base class, no settings."""

    def unlearn_step(self, model, retain_batch, forget_batch, optimizer, step, epoch):
        loss = nn.functional.cross_entropy(model(retain_batch[0]), retain_batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}


def test_a_plain_object_gets_the_defaults_of_the_benchmark():
    method = as_method(Plain())
    optimizer = method.configure_optimizer(linear().parameters())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert (method.epochs, method.batch_size, method.batch_norm) == (20, 128, "update")
    assert (method.name, method.needs, method.from_scratch) == ("Plain", {"retain", "forget"}, False)
    method.edit(linear(), (), ())
    method.finish(linear())
    method.load_state_dict(method.state_dict())


def test_a_plain_object_may_say_more():
    class Own(Plain):
        epochs, lr, optimizer, needs, batch_norm = 3, 0.1, "sgd", ("retain",), "freeze"

        def __init__(self):
            self.calls = []

        def prepare(self, model):
            self.calls.append("prepare")

        def edit(self, model, retain_loader, forget_loader):
            self.calls.append("edit")

        def finish(self, model):
            self.calls.append("finish")

        def state_dict(self):
            return {"calls": len(self.calls)}

        def load_state_dict(self, state):
            self.calls.append(state["calls"])

    method = as_method(Own())
    assert type(method.configure_optimizer(linear().parameters())) is torch.optim.SGD
    assert (method.epochs, method.lr, method.needs, method.batch_norm) == (3, 0.1, {"retain"}, "freeze")
    method.prepare(linear())
    method.edit(linear(), (), ())
    method.finish(linear())
    method.load_state_dict(method.state_dict())
    assert method.inner.calls == ["prepare", "edit", "finish", 3]


def test_an_object_with_only_edit_runs_for_no_epoch():
    class OneShot:
        def edit(self, model, retain_loader, forget_loader):
            pass

    assert as_method(OneShot()).epochs == 0


def test_own_methods_are_not_wrapped_and_strangers_are_refused():
    own = Identity()
    assert as_method(own) is own
    with pytest.raises(InputError, match="object is no unlearning method"):
        as_method(object())
    strange = Plain()
    strange.needs = {"history"}
    with pytest.raises(InputError, match="history"):
        as_method(strange)
