"""Fine-tuning of the last k blocks: what moves, by how much, and what does not move by a bit."""

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError, RunError
from retrace_pl.models import ResNetCIFAR, SmallCNN
from retrace_pl.unlearning import CFk, RetainFineTune


def batch(n=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 1, 8, 8, generator=generator), torch.randint(3, (n,), generator=generator)


def network(kind=SmallCNN):
    torch.manual_seed(0)
    return kind(1, 3, width=2)


def run(method, model, steps=3):
    optimizer = method.configure_optimizer(model.parameters())  # before prepare, as in UnlearningTask
    method.prepare(model.eval())
    method.edit(model, [batch()], [])
    for step in range(steps):
        method.set_mode(model)
        result = method.unlearn_step(model, batch(), None, optimizer, step, step)
    return result


def changed(model, original):
    now = model.state_dict()
    return {name for name, value in original.state_dict().items() if not torch.equal(value, now[name])}


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LAST = {"head.weight", "head.bias"}
BEFORE = {"body.8.weight"} | {f"body.9.{name}" for name in NORM}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("k", "moves"), [(1, LAST), (2, LAST | BEFORE)])
def test_everything_outside_the_last_blocks_is_unchanged_to_the_bit(optimizer, k, moves):
    model = network()
    run(CFk(k=k, lr=0.1, optimizer=optimizer, momentum=0.9, weight_decay=0.1), model)
    assert changed(model, network()) == moves


def test_residual_blocks_move_as_a_whole():
    model = network(ResNetCIFAR)
    run(CFk(k=2, lr=0.1, weight_decay=0.1), model)
    assert {name.rpartition(".")[0].split(".")[0] for name in changed(model, network(ResNetCIFAR))} == {"body", "head"}
    assert all(name.startswith(("body.5.", "head.")) for name in changed(model, network(ResNetCIFAR)))


def test_with_all_blocks_it_is_fine_tuning():
    model, other = network(), network()
    run(CFk(k=4, lr=0.1, weight_decay=0.1), model)
    run(RetainFineTune(lr=0.1, weight_decay=0.1), other)
    assert not changed(model, other)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
def test_one_step_is_the_gradient_step_of_the_last_layer(strength):
    model = network()
    with torch.no_grad():
        features, labels = model.eval().features(batch()[0]), batch()[1]
    weight, bias = model.head.weight.detach().clone(), model.head.bias.detach().clone()
    error = ((features @ weight.T + bias).softmax(1) - torch.eye(3)[labels]) / len(labels)
    result = run(CFk(k=1, lr=0.3, strength=strength), model, steps=1)
    torch.testing.assert_close(model.head.weight.detach(), weight - strength * 0.3 * error.T @ features)
    torch.testing.assert_close(model.head.bias.detach(), bias - strength * 0.3 * error.sum(0))
    loss = nn.functional.cross_entropy(features @ weight.T + bias, labels)
    torch.testing.assert_close(result["loss"], loss)


def test_frozen_statistics_of_the_last_blocks_and_modes():
    model, method = network(), CFk(k=2, batch_norm="freeze")
    run(method, model)
    assert changed(model, network()) == {"head.weight", "head.bias", "body.8.weight", "body.9.weight", "body.9.bias"}
    run(CFk(k=2), model)
    assert [model.body[i].training for i in (1, 5, 9)] == [False, False, True]
    assert model.training, "modules that hold the last blocks stay in train mode"
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_blocks_survive_an_interruption():
    method, resumed = CFk(k=2), CFk(k=2)
    run(method, network(), steps=1)
    model, other = network(), network()
    resumed.prepare(model)
    resumed.load_state_dict(method.state_dict())
    resumed.set_mode(model)
    resumed.unlearn_step(model, batch(), None, resumed.configure_optimizer(model.parameters()), 0, 0)
    run(CFk(k=2), other, steps=1)
    assert not changed(model, other)


def test_errors_are_named():
    with pytest.raises(InputError, match=r"CFk\.k is 0"):
        CFk(k=0)
    with pytest.raises(InputError, match=r"CFk\.k is 5; the model has 4 blocks"):
        run(CFk(k=5), network())
    with pytest.raises(InputError, match="needs retained records"):
        CFk().edit(network(), [], [])
    method = CFk()
    with pytest.raises(RunError, match="call edit"):
        method.set_mode(network())
