"""Boundary Expand against a model that really has the extra class, and the life of the extra row."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn import functional

from retrace_pl.data import DigitsSource, UnlearningDataModule
from retrace_pl.errors import InputError, RunError
from retrace_pl.models import SmallCNN
from retrace_pl.tasks import UnlearningTask
from retrace_pl.unlearning import BoundaryExpand


def network(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=bias))


def batch(seed, n=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def widened(model, extra):
    """The same model with a last layer of one more row: what the publication trains."""
    wide = copy.deepcopy(model)
    wide[2] = nn.Linear(5, 4)
    with torch.no_grad():
        wide[2].weight.copy_(torch.cat((model[2].weight, extra["weight"])))
        wide[2].bias.copy_(torch.cat((model[2].bias, extra["bias"])))
    return wide


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adam", "weight_decay": 0.01}, {"strength": 0.0}])
def test_steps_equal_those_of_a_model_with_one_more_class(settings):
    model = network()
    method = BoundaryExpand(lr=0.1, **settings)
    method.prepare(model)
    wide = widened(model, copy.deepcopy(method.state_dict()["extra"]))
    optimizer = method.configure_optimizer(model.parameters())
    reference = method.configure_optimizer(wide.parameters())
    for step in range(3):
        inputs, labels = batch(step)
        result = method.unlearn_step(model, None, (inputs, labels), optimizer, step, 0)
        loss = functional.cross_entropy(wide(inputs), torch.full_like(labels, 3))
        reference.zero_grad()
        loss.backward()
        reference.step()
        torch.testing.assert_close(result["loss"], loss.detach())
    extra = method.state_dict()["extra"]
    torch.testing.assert_close(torch.cat((model[2].weight, extra["weight"])), wide[2].weight)
    torch.testing.assert_close(torch.cat((model[2].bias, extra["bias"])), wide[2].bias)
    torch.testing.assert_close(model[0].weight, wide[0].weight)


def test_the_model_never_changes_its_shape_and_keeps_no_hook():
    model = network()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    method = BoundaryExpand(lr=0.1)
    method.prepare(model)
    method.unlearn_step(model, None, batch(0), method.configure_optimizer(model.parameters()), 0, 0)
    assert not model[2]._forward_hooks
    method.finish(model)
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert model(batch(1)[0]).shape == (6, 3)
    assert method.state_dict() == {}


def test_the_extra_row_takes_the_learning_rate_of_the_given_optimizer():
    model = network()
    method = BoundaryExpand(lr=0.1)
    method.prepare(model)
    before = copy.deepcopy(method.state_dict()["extra"])
    method.unlearn_step(model, None, batch(0), torch.optim.SGD(model.parameters(), lr=0.0), 0, 0)
    after = method.state_dict()["extra"]
    assert all(torch.equal(before[name], after[name]) for name in before), "a scheduler had set it to 0"


def test_the_row_depends_on_the_seed_alone_and_leaves_the_global_generator_as_it_was():
    def row(seed):
        method = BoundaryExpand(seed=seed)
        method.prepare(network())
        return method.state_dict()["extra"]["weight"]

    first = row(0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    method = BoundaryExpand()
    method.prepare(network())
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(method.state_dict()["extra"]["weight"], first)
    assert not torch.equal(row(1), first)
    assert float(first.abs().max()) <= 5**-0.5


def test_a_resumed_run_goes_on_with_the_same_row_and_momentum():
    through, halves = network(), network()
    whole, first, second = (BoundaryExpand(lr=0.1) for _ in range(3))
    whole.prepare(through)
    optimizer = whole.configure_optimizer(through.parameters())
    for step in range(4):
        whole.unlearn_step(through, None, batch(step), optimizer, step, 0)
    first.prepare(halves)
    optimizer = first.configure_optimizer(halves.parameters())
    for step in range(2):
        first.unlearn_step(halves, None, batch(step), optimizer, step, 0)
    saved = copy.deepcopy(first.state_dict())
    second.prepare(network())
    second.load_state_dict(saved)
    for step in range(2, 4):
        second.unlearn_step(halves, None, batch(step), optimizer, step, 0)
    for name, value in through.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[name], value, rtol=0, atol=0)
    finished = BoundaryExpand()
    finished.prepare(network())
    finished.load_state_dict({})
    assert finished.state_dict() == {}


def test_lightning_resumes_it_from_a_checkpoint(tmp_path):
    data = UnlearningDataModule(
        DigitsSource(), forget_class=3, image_size=16, channels=1, train_size=200, test_size=100, batch_size=8
    )
    data.setup()

    def fit(epochs, checkpoint=None):
        torch.manual_seed(0)
        model = SmallCNN(1, 10, width=4)
        task = UnlearningTask(model, BoundaryExpand(epochs=2, lr=0.01, batch_size=8), 10)
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_train_batches=2,
            max_epochs=epochs,
        )
        torch.manual_seed(1)
        trainer.fit(task, datamodule=data.unlearning_view(batch_size=8), ckpt_path=checkpoint)
        return task, trainer

    path = tmp_path / "one.ckpt"
    task, trainer = fit(1)
    assert task.method.state_dict()["optimizer"]["state"], "momentum of the extra row"
    trainer.save_checkpoint(path)
    extra = torch.load(path, weights_only=True)["unlearning"]["state"]["extra"]
    assert extra["weight"].shape == (1, 16)
    resumed, _ = fit(2, path)
    assert resumed.steps_done == 4
    assert resumed.stopped
    assert resumed.method.state_dict() == {}, "finished: the row is gone"
    assert resumed.model(torch.rand(2, 1, 16, 16)).shape == (2, 10)


def test_other_architectures_and_missing_preparation_are_named():
    with pytest.raises(InputError, match=r"has none"):
        BoundaryExpand().prepare(nn.Conv2d(1, 2, 3))
    hidden = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    method = BoundaryExpand()
    method.prepare(hidden)
    with pytest.raises(InputError, match=r"output of its last nn\.Linear"):
        method.unlearn_step(hidden, None, batch(0), torch.optim.SGD(hidden.parameters(), lr=0.1), 0, 0)
    assert not hidden[0]._forward_hooks
    with pytest.raises(RunError, match=r"call prepare\(model\)"):
        BoundaryExpand().unlearn_step(network(), None, batch(0), None, 0, 0)


def test_a_last_layer_without_bias_and_weights_of_a_wrapper_work():
    model = network(bias=False)
    method = BoundaryExpand(lr=0.1)
    method.forget_weights = lambda records: torch.zeros(len(records[1]))
    method.prepare(model)
    before = copy.deepcopy(model.state_dict())
    result = method.unlearn_step(model, None, batch(0), method.configure_optimizer(model.parameters()), 0, 0)
    assert float(result["loss"]) == 0.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
