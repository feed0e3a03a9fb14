"""SCRUBRewind: which epoch it goes back to, by hand, and after an interruption."""

import copy

import pytest
import torch
from torch import nn

from retrace_pl.errors import InputError
from retrace_pl.unlearning import SCRUB, SCRUBRewind

RIGHT, WRONG = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # inputs that an identity puts in class 0 and 1


def forget(right):
    """Four records of class 0, of which the identity gets that many right."""
    return torch.cat([RIGHT] * right + [WRONG] * (4 - right)), torch.zeros(4, dtype=torch.int64)


def identity():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.zero_()
    return model


def drive(method, model, accuracies, start=0):
    """Every epoch has two steps; both see a forget batch with that many of 4 right. Returns each epoch's weights."""
    optimizer, weights = method.configure_optimizer(model.parameters()), []
    for epoch, right in enumerate(accuracies, start):
        for step in range(2):
            result = method.unlearn_step(model, forget(2), forget(right), optimizer, 2 * epoch + step, epoch)
            assert result["forget_batch_acc"] == right / 4
        weights.append(copy.deepcopy(model.state_dict()))
    return weights


def assert_same(first, second):
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("target", "accuracies", "chosen"),
    [
        (0.0, [3, 1, 2], 1),
        (0.0, [0, 2, 0, 1], 2),  # the latest of equals
        (0.5, [4, 2, 0], 1),
        (0.75, [0, 1, 2], 2),  # the last one counts too
        (1.0, [4, 3, 3], 0),
    ],
)
def test_the_epoch_closest_to_the_reference_wins(target, accuracies, chosen):
    model, method = identity(), SCRUBRewind(target_forget_accuracy=target, lr=1e-4, msteps=0)
    method.prepare(model)
    weights = drive(method, model, accuracies)
    assert not torch.equal(weights[0]["weight"], weights[-1]["weight"])
    method.finish(model)
    assert_same(model.state_dict(), weights[chosen])


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_resumed_run_rewinds_to_the_same_epoch(interrupted_after):
    accuracies = [3, 1, 2, 4]
    model, method = identity(), SCRUBRewind(lr=1e-4, msteps=0, momentum=0)
    method.prepare(model)
    drive(method, model, accuracies[:interrupted_after])
    saved, weights = copy.deepcopy(method.state_dict()), copy.deepcopy(model.state_dict())
    resumed, again = SCRUBRewind(lr=1e-4, msteps=0, momentum=0), identity()
    resumed.prepare(again)
    again.load_state_dict(weights)
    resumed.load_state_dict(saved)
    drive(resumed, again, accuracies[interrupted_after:], start=interrupted_after)
    resumed.finish(again)
    drive(method, model, accuracies[interrupted_after:], start=interrupted_after)
    method.finish(model)
    assert_same(again.state_dict(), model.state_dict())


def test_the_steps_are_those_of_scrub_and_the_mode_is_left_alone():
    models = [nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for method, model in zip((SCRUB(), SCRUBRewind()), models, strict=True):
        method.prepare(model)
        method.set_mode(model)
        optimizer = method.configure_optimizer(model.parameters())
        for step in range(3):
            method.unlearn_step(model, forget(2), forget(3), optimizer, step, 0)
        assert model[0].training
    assert_same(models[0].state_dict(), models[1].state_dict())


def test_only_the_latest_batches_count_and_a_new_run_starts_afresh():
    model, method = identity(), SCRUBRewind(window=1, lr=1e-9, msteps=0)
    method.prepare(model)
    optimizer = method.configure_optimizer(model.parameters())
    for right in (4, 1):
        method.unlearn_step(model, forget(2), forget(right), optimizer, 0, 0)
    assert method.state_dict()["recent"] == [[1, 4]]
    method.prepare(model)
    assert method.state_dict()["recent"] == []
    assert method.state_dict()["best"] == {}
    method.finish(model)  # nothing to go back to


def test_state_is_plain():
    model, method = identity(), SCRUBRewind(lr=1e-4, msteps=0)
    method.prepare(model)
    drive(method, model, [3, 1])
    state = method.state_dict()
    assert {key: type(value) for key, value in state.items() if key != "best"} == {
        "epoch": int,
        "recent": list,
        "best_distance": float,
        "best_epoch": int,
    }
    assert state["best_epoch"] == 0
    assert state["best_distance"] == 0.75


@pytest.mark.parametrize(("settings", "named"), [({"target_forget_accuracy": 2}, "target"), ({"window": 0}, "window")])
def test_settings_out_of_range_are_named(settings, named):
    with pytest.raises(InputError, match=f"SCRUBRewind.{named}"):
        SCRUBRewind(**settings)
